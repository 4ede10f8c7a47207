"""The content of the file of one's own that a grid's cells train on, which is their identity.

It is found where the file lies. Where that is not here, what the runs folder's cells were trained
on under the same path says it: so the commands agree on what is done, whatever flags they get.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.spec import ALPACA, DataSpec, data_file
from harness.errors import StorageError
from harness.grid.folders import stored_cells
from harness.grid.schema import GridSpec, is_own_file
from harness.records.files import sha256_of_file
from harness.records.results import read_result


@dataclass(frozen=True)
class OwnData:
    """What is known of the file that cells train on; nothing of other data."""

    sha256: str | None = None
    fault: str | None = None
    """Why its content is not known, in one line."""


def find_own_data(grid: GridSpec, data_root: Path | None, runs_dir: Path) -> OwnData:
    """The content of a grid's training file, if that is one's own."""
    if not is_own_file(grid.data, grid.world):
        return OwnData()
    file = data_file(grid.data, data_root)
    if file is not None and file.is_file():
        try:
            return OwnData(sha256_of_file(file))
        except OSError as error:
            return OwnData(None, f"data.path: {file}: cannot be read ({error.strerror})")
    known = trained_on(grid.data, runs_dir)
    if len(known) == 1:
        return OwnData(known.pop())
    where = "--data-root (or ZBENCH_DATA_ROOT) names the folder that it is in"
    if known:
        listed = ", ".join(sorted(sha256[:12] for sha256 in known))
        fault = f"{len(known)} files of this name were trained on in {runs_dir} ({listed}); {where}"
    elif file is not None:
        return OwnData(
            None, f"data.path: no file {file}; put it there, or correct the path or --data-root"
        )
    else:
        fault = f"is relative; {where}"
    return OwnData(None, f"data.path: {grid.data.path}: {fault}")


def trained_on(data: DataSpec, runs_dir: Path) -> set[str]:
    """The SHA-256 of every file that cells of a runs folder were trained on under this path."""
    found: set[str] = set()
    for folder, cell in stored_cells(runs_dir):
        if (sha256 := _content(cell, data, folder)) is not None:
            found.add(sha256)
    return found


def _content(cell: dict[str, Any], data: DataSpec, folder: Path) -> str | None:
    stored = cell.get("data")
    if not isinstance(stored, dict) or stored.get("path") != data.path or not cell.get("train"):
        return None
    if "data_sha256" in cell:
        sha256 = cell["data_sha256"]
        return sha256 if isinstance(sha256, str) else None
    if stored.get("source") in (None, ALPACA):  # of an earlier version: its result alone says it
        with contextlib.suppress(StorageError):
            result = read_result(folder)
            if result is not None and result.train is not None:
                return result.train.data_file_sha256
    return None
