"""Warnings that come while cells run, and those that stand with a grid's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.canary import alarms, grid_alarms
from harness.commands.display import print_line
from harness.errors import StorageError
from harness.grid.schema import is_base
from harness.grid.status import CellState
from harness.records.events import CellEnded, Event, Warned
from harness.records.results import read_result

if TYPE_CHECKING:
    from rich.console import Console


class Notices:
    """Prints each warning of cells once; and, as soon as a base model is scored, its alarms."""

    def __init__(self, console: Console, states: Sequence[CellState]) -> None:
        self.console = console
        self.states = {state.cell.id: state for state in states}
        self.printed: dict[str, None] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            state = self.states.get(event.cell_id)
            label = state.cell.label if state else event.cell_id
            self._warn(event.message, label, always=event.restarts)
        elif isinstance(event, CellEnded) and event.cell_id in self.states:
            state = self.states[event.cell_id]
            if is_base(state.cell):
                self._check_base(state)

    def _check_base(self, base: CellState) -> None:
        try:
            result = read_result(base.folder)
        except StorageError:  # reported where the cells are listed
            return
        for alarm in alarms(base.cell, result):
            self._warn(str(alarm))

    def _warn(self, text: str, label: str | None = None, *, always: bool = False) -> None:
        if always or text not in self.printed:  # many cells have the same model and data
            self.printed[text] = None
            print_warnings(self.console, [f"{label}: {text}" if label else text])


def grid_warnings(states: Sequence[CellState]) -> list[str]:
    """What a reader of a grid's results must know, one line each."""
    return [str(alarm) for alarm in grid_alarms(states)]


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Prints one line for each warning."""
    for text in warnings:
        print_line(console, f"warning: {text}", "yellow")
