"""The command lines of `verify` and `clean`, which look after a runs folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import DataOption, DebugOption, JsonOption, RunsOption

RUNS = Path("runs")
OneGrid = Annotated[
    str | None, typer.Argument(metavar="[GRID]", help="The cells of this grid; else all there are.")
]
Grids = Annotated[
    list[str], typer.Argument(metavar="GRID...", help="All grids whose cells are still wanted.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Remove what is listed.")]


def verify_command(
    grid: OneGrid = None,
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Read all files of cells anew; tell what is damaged, and what becomes of it."""
    from harness.commands import verify
    from harness.grid.workspace import open_grid

    cells = None if grid is None else open_grid(grid, runs_dir, data_root, None).cells
    return verify.verify_command(runs_dir, cells, as_json=as_json)


def clean_command(
    grids: Grids,
    yes: YesOption = False,
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """List checkpoints of finished cells and unfinished cells of no grid; never a result."""
    from harness.commands import clean
    from harness.grid.workspace import open_grid

    opened = [open_grid(grid, runs_dir, data_root, None) for grid in grids]
    cells = [cell for grid in opened for cell in grid.cells]
    return clean.clean_command(runs_dir, cells, remove=yes, as_json=as_json)
