"""The command lines of `compare` and `drift`, which take two sides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import (
    SEVERAL_RUNS,
    DataOption,
    DebugOption,
    JsonOption,
    OnlyOption,
    RunsOption,
    SeveralRunsOption,
    UriOption,
)

RUNS = Path("runs")
First = Annotated[
    str, typer.Argument(metavar="A", help="A cell's name, an MLflow run, or method=lora,seed=0.")
]
Second = Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")]
ItemsOption = Annotated[
    int, typer.Option("--items", min=0, help="Print so many items of each kind: only A is right...")
]


def compare_command(
    first: First,
    second: Second,
    items: ItemsOption = 0,
    runs_dir: SeveralRunsOption = SEVERAL_RUNS,
    data_root: DataOption = None,
    tracking_uri: UriOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Tell what differs between two results, or groups, and can move a score; then the scores."""
    from harness.commands import compare

    return compare.compare_command(
        first,
        second,
        runs_dir=runs_dir,
        tracking_uri=tracking_uri,
        as_json=as_json,
        items=items,
        data_root=data_root,
    )


def drift_command(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A runs folder, or a side as in `compare`.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same cells, made with another.")],
    only: OnlyOption = None,
    runs_dir: RunsOption = RUNS,
    tracking_uri: UriOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Tell how far other software or another device moved the scores of the same cells."""
    from harness.commands import drift

    return drift.drift_command(
        old, new, only=only, runs_dir=runs_dir, tracking_uri=tracking_uri, as_json=as_json
    )
