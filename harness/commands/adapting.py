"""The command lines of `export-adapter` and `import-adapter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import (
    CellArgument,
    DataOption,
    DebugOption,
    JsonOption,
    RunsOption,
    expanded_path,
)

RUNS = Path("runs")


def export_adapter_command(
    cell: CellArgument,
    output: Annotated[
        Path, typer.Argument(metavar="DIR", callback=expanded_path, help="A new folder.")
    ],
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Write a trained cell's adapter in PEFT's format, with a model card."""
    from harness.commands import adapters

    return adapters.export_adapter_command(
        cell, output, runs_dir=runs_dir, data_root=data_root, as_json=as_json
    )


def import_adapter_command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", callback=expanded_path, help="A LLaMA-Adapter .pth checkpoint."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", help="Its base: a shipped grid's, or a checkpoint folder.")
    ],
    output: Annotated[Path, typer.Option("--output", callback=expanded_path, help="A new folder.")],
    method: Annotated[
        str | None, typer.Option("--method", help="zero-init-linear or random-init, if unclear.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="The method's, name=value; repeatable.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Turn a LLaMA-Adapter checkpoint into an adapter folder that a grid can score."""
    from harness.commands import adapters

    return adapters.import_adapter_command(
        file, output, model=model, method=method, options=option or [], as_json=as_json
    )
