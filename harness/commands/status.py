"""`zbench status`: how far the cells of a grid are."""

from __future__ import annotations

from collections.abc import Sequence
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
from harness.commands.tuning import tuning_lines, tuning_records, waiting_lines
from harness.grid.folders import CHECKPOINTS_FOLDER, LOG_FILE
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid
from harness.records.checkpoints import checkpoint_folders, step_of

if TYPE_CHECKING:
    from rich.console import Console


def status_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Shows how far the cells are; `verify` and `run-grid` read all of their files."""
    grid = replace(grid, thorough=False)
    warnings = [*grid.notices, *grid_warnings(grid.states)]
    if as_json:
        cells = cell_records(grid.states)
        told = {"tunings": tuning_records(grid)} if grid.tunings else {}
        print_json({"grid": grid.spec.name, "warnings": warnings, **told, "cells": cells})
    else:
        screen = console()
        _print_status(screen, grid.states)
        for line in (*waiting_lines(grid), *(f"tuning:  {one}" for one in tuning_lines(grid))):
            print_line(screen, line)
        print_warnings(screen, warnings)
    return 0


def _print_status(screen: Console, states: Sequence[CellState]) -> None:
    """Prints the number of cells by status, and all that are not done by name."""
    cells = {name: [state for state in states if state.status == name]
             for name in ("done", "running", "failed", "to do", "stale", "pruned")}  # fmt: skip
    for name in ("stale", "pruned"):
        if not cells[name]:
            del cells[name]
    counts = ", ".join(f"{len(members)} {name}" for name, members in cells.items())
    screen.print(f"{len(states)} cells: {counts}", highlight=False)
    print_notes(screen, states)
    for state in cells["running"]:
        print_line(screen, f"running: {state.cell.label}  log: {state.folder / LOG_FILE}")
    for state in cells["failed"]:
        print_line(screen, f"failed:  {state.cell.label}: {state.fault}{log_line(state)}")
    for state in cells.get("stale", []):
        print_line(screen, f"stale:   {state.fault}")
    for state in cells.get("pruned", []):
        print_line(screen, f"pruned:  {state.cell.label}: {state.fault}")
    for state in cells["to do"]:
        lacks = ", ".join(task.name for task in state.missing)
        what = f"scores of {lacks}" if state.trained else f"training{_resumed_step(state)}"
        print_line(screen, f"to do:   {state.cell.label}: {what}")


def _resumed_step(state: CellState) -> str:
    """Which step a training that was stopped resumes from."""
    found = checkpoint_folders(state.folder / CHECKPOINTS_FOLDER)
    return f" (resumes from step {step_of(found[0])})" if found else ""
