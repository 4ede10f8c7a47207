"""The command lines of `prefetch` and `doctor`: what is done before a grid starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import (
    DataOption,
    DebugOption,
    GridArgument,
    JsonOption,
    expanded_path,
)

ToOption = Annotated[
    Path,
    typer.Option("--to", callback=expanded_path, help="The folder to fill; then --data-root."),
]
UpdateOption = Annotated[
    bool, typer.Option("--update", help="Take the newest commits, where it was filled before.")
]


def prefetch_command(
    grid: GridArgument,
    to: ToOption,
    data_root: DataOption = None,
    update: UpdateOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Fetch models, data and benchmarks of a grid into a folder, to run it without network."""
    from harness.commands import prefetch

    return prefetch.prefetch_command(grid, to, data_root=data_root, update=update, as_json=as_json)
