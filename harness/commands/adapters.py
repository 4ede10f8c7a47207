"""TODO: say what this is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import display
from harness.commands.display import print_json

if TYPE_CHECKING:
    from harness.export.adapters import Exported


def export_adapter_command(
    cell: str, output: Path, *, runs_dir: Path, data_root: Path | None, as_json: bool
) -> int:
    """Writes a trained cell's weights for others."""
    from harness.export.adapters import export_cell

    _print_exported(export_cell(cell, output, runs_dir=runs_dir, data_root=data_root), as_json)
    return 0


def import_adapter_command(
    file: Path, output: Path, *, model: str, method: str | None, options: list[str], as_json: bool
) -> int:
    """Turns a LLaMA-Adapter checkpoint into an adapter folder."""
    from harness.export.adapters import import_llama_adapter

    exported = import_llama_adapter(file, output, model=model, method=method, options=options)
    _print_exported(exported, as_json)
    return 0


def _print_exported(exported: Exported, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "folder": str(exported.folder),
                "method": exported.method,
                "num_parameters": exported.num_parameters,
            }
        )
        return
    display.console().print(
        f"{exported.folder}: {exported.method}, {exported.num_parameters:,} parameters",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
