"""`zbench status`: how far the cells of a grid are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.commands.display import (
    cell_records,
    console,
    grid_warnings,
    log_line,
    print_json,
    print_line,
    print_notes,
    print_warnings,
)
from harness.commands.live import Live, live_cells, queued_jobs
from harness.commands.tuning import tuning_lines, tuning_records, waiting_lines
from harness.grid.folders import CHECKPOINTS_FOLDER
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid
from harness.records.checkpoints import checkpoint_folders, step_of

if TYPE_CHECKING:
    from rich.console import Console


ORDER = ("done", "running", "queued", "failed", "to do", "stale", "pruned")
SELDOM = ("queued", "stale", "pruned")
"""Told where there are any."""


def status_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Shows how far the cells are; `verify` and `run-grid` read all of their files."""
    grid = replace(grid, thorough=False)
    warnings = [*grid.notices, *grid_warnings(grid.states)]
    live = live_cells(grid.states, queued_jobs(grid.runs))
    if as_json:
        records = cell_records(grid.states)
        for record in records:
            if (one := live.get(record["id"])) is not None:
                record["status"] = "queued" if one.waits else "running"
                record[record["status"]] = one.record()
        told = {"tunings": tuning_records(grid)} if grid.tunings else {}
        print_json({"grid": grid.spec.name, "warnings": warnings, **told, "cells": records})
    else:
        screen = console()
        print_status(screen, grid, live)
        print_warnings(screen, warnings)
    return 0


def print_status(screen: Console, grid: OpenGrid, live: Mapping[str, Live]) -> None:
    """Prints the number of cells by status, all that are not done by name, and the tunings."""
    states = grid.states
    screen.print(counts_line(states, live), highlight=False)
    print_notes(screen, states)
    shown: dict[str, list[CellState]] = {}
    for state in states:
        shown.setdefault(shown_status(state, live), []).append(state)
    for status, line in (
        ("running", lambda state: running_line(state, live[state.cell.id]) + log_line(state)),
        ("queued", lambda state: queued_line(state, live[state.cell.id])),
        ("failed", failed_line),
        ("stale", lambda state: f"stale:   {state.fault}"),
        ("pruned", lambda state: f"pruned:  {state.cell.label}: {state.fault}"),
        ("to do", _to_do_line),
    ):
        for state in shown.get(status, ()):
            print_line(screen, line(state))
    for text in (*waiting_lines(grid), *(f"tuning:  {one}" for one in tuning_lines(grid))):
        print_line(screen, text)


def shown_status(state: CellState, live: Mapping[str, Live]) -> str:
    """The status of a cell, or that it waits in a queue."""
    one = live.get(state.cell.id)
    return "queued" if one is not None and one.waits else state.status


def counts_line(states: Sequence[CellState], live: Mapping[str, Live]) -> str:
    """The number of cells by status."""
    counts = Counter(shown_status(state, live) for state in states)
    parts = [f"{counts[name]} {name}" for name in ORDER if counts[name] or name not in SELDOM]
    return f"{len(states)} cells: {', '.join(parts)}"


def running_line(state: CellState, live: Live) -> str:
    """Where a cell runs, since when, and how far it is."""
    return f"running: {state.cell.label}: {live}"


def queued_line(state: CellState, live: Live) -> str:
    """Its job, and why it waits."""
    return f"queued:  {state.cell.label}: {live}"


def failed_line(state: CellState) -> str:
    """Why a cell failed, and its log."""
    return f"failed:  {state.cell.label}: {state.fault}{log_line(state)}"


def _to_do_line(state: CellState) -> str:
    lacks = ", ".join(task.name for task in state.missing)
    what = f"scores of {lacks}" if state.trained else f"training{_resumed_step(state)}"
    return f"to do:   {state.cell.label}: {what}"


def _resumed_step(state: CellState) -> str:
    """Which step a training that was stopped resumes from."""
    found = checkpoint_folders(state.folder / CHECKPOINTS_FOLDER)
    return f" (resumes from step {step_of(found[0])})" if found else ""
