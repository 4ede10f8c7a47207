"""TODO: say what this is for."""

from __future__ import annotations

from typing import Any

from harness.commands import display
from harness.commands.display import print_json
from harness.commands.notices import grid_warnings, print_warnings
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid


def status_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Shows how far the cells are."""
    states = grid.states()
    warnings, cells = grid_warnings(states), status_records(states)
    if as_json:
        print_json({"grid": grid.spec.name, "warnings": warnings, "cells": cells})
    else:
        display.print_status(display.console(), states)
        print_warnings(display.console(), warnings)
    return 0


def sync_command(grid: OpenGrid, *, tracking_uri: str | None) -> int:
    """Replays into MLflow what it lacks."""
    from harness.tracking.runs import GridRuns
    from harness.tracking.uri import hide_password, resolve_uri

    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    runs = GridRuns(grid.spec, uri, grid.runs_dir)
    logged = runs.sync(grid.states())
    runs.close()
    display.console().print(
        f"{logged} cells logged to {hide_password(uri)}", highlight=False, soft_wrap=True
    )
    return 0


def status_records(states: list[CellState]) -> list[dict[str, Any]]:
    return [
        {
            "id": state.cell.id,
            "label": state.cell.label,
            "status": state.status,
            "folder": str(state.folder),
            "missing": [task.name for task in state.missing],
            "error": state.fault,
            "scores": display.primary_scores(state),
        }
        for state in states
    ]
