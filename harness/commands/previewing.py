"""The command line of `preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import DataOption, DebugOption, GridArgument, JsonOption, RunsOption


def preview_command(
    grid: GridArgument,
    cell: Annotated[
        str | None, typer.Argument(metavar="[CELL]", help="As elsewhere; else one per data set.")
    ] = None,
    runs_dir: RunsOption = Path("runs"),
    data_root: DataOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Show training rows and an item of each benchmark as the model sees them; loads no weights."""
    from harness.commands import preview
    from harness.grid.workspace import open_grid

    opened = open_grid(grid, runs_dir, data_root, None)
    return preview.preview_command(opened, cell, as_json=as_json)
