"""Adapters whose folders are gone, known by the cells that were scored with them."""

from __future__ import annotations

from pathlib import Path

from harness.grid.folders import CELL_FILE, cell_folders
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object


def stored_adapter(runs_dir: Path, folder: Path, label: str) -> str | None:
    """The SHA-256 of the adapter that a runs folder's cells had from `folder`, or by its label."""
    for place in cell_folders(runs_dir).values():
        try:
            record = read_json_object(place / CELL_FILE)
        except Unreadable:  # told where that cell is asked for
            continue
        options = record.get("options")
        if record.get("method") != "adapter" or not isinstance(options, dict):
            continue
        if options.get("adapter") == str(folder) or record.get("method_label") == label:
            return str(options.get("sha256", ""))
    return None
