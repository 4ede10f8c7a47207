"""Adapters that a grid names: where their folders are, and those that are gone.

An adapter whose folder is gone is known by the cells that were scored with it.
"""

from __future__ import annotations

from pathlib import Path

from harness.grid.folders import Runs, stored_cells
from harness.grid.names import file_name
from harness.grid.schema import LONGEST_LABEL
from harness.readers.files import user_path


def adapter_folder(adapter: str, folder: Path) -> tuple[Path, str]:
    """The folder that a grid's file in `folder` calls by this path, and a label made of its name.

    Raises:
        UsageError: no file can have this path.
        OSError: a folder on the way may not be entered.
        RuntimeError: its links lead round in a circle.
    """
    found = user_path(folder / user_path(adapter)).resolve()
    return found, file_name(found.name).strip("-._")[:LONGEST_LABEL] or "adapter"


def stored_adapter(runs: Runs, folder: Path, label: str) -> str | None:
    """The SHA-256 of the adapter that cells had from `folder`, or by its label."""
    for _, record in stored_cells(runs):
        options = record.get("options")
        if record.get("method") != "adapter" or not isinstance(options, dict):
            continue
        if options.get("adapter") == str(folder) or record.get("method_label") == label:
            return str(options.get("sha256", ""))
    return None
