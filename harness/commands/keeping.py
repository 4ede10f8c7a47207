"""The command lines of `verify`, `clean` and `merge`, which look after runs folders."""

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
Folders = Annotated[
    list[Path], typer.Argument(metavar="FROM... TO", help="Runs folders; cells go to the last.")
]
GridOption = Annotated[
    str | None, typer.Option("--grid", help="Only the cells of this grid; else all there are.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be copied.")]
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


def merge_command(
    folders: Folders,
    grid: GridOption = None,
    dry_run: DryOption = False,
    data_root: DataOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Copy finished cells of runs folders into one, checked by hash, never over another result."""
    from harness.commands import merge
    from harness.errors import UsageError
    from harness.grid.merging import check_places
    from harness.grid.workspace import open_grid
    from harness.readers.files import user_path

    *sources, target = [user_path(folder) for folder in folders]
    if not sources:
        raise UsageError(f"{target}: name what is copied, and after it the folder that it goes to")
    check_places(sources, target, dry_run=dry_run)
    ids = None
    if grid is not None:
        opened = open_grid(grid, [*sources, target], data_root, None, results_alone=True)
        ids = {name for cell in opened.cells for name in (cell.id, *cell.former_ids)}
    return merge.merge_command(sources, target, ids, dry_run=dry_run, as_json=as_json)
