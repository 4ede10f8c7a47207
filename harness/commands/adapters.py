"""`zbench export-adapter` and `import-adapter`: weights as other tools read and write them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.display import console, print_json, print_line

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
        print_json(asdict(exported) | {"folder": str(exported.folder)})
        return
    text = f"{exported.folder}: {exported.method}, {exported.num_parameters:,} parameters"
    print_line(console(), text)
