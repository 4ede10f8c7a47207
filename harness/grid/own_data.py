"""The content of the files of one's own that a grid's cells train on, which is their identity.

It is found where a file lies. Where that is not here, what the runs folder's cells were trained
on under the same path says it: so the commands agree on what is done, whatever flags they get.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.data.spec import ALPACA, DataSpec, data_file
from harness.errors import StorageError, UsageError
from harness.grid.folders import stored_cells
from harness.grid.names import data_place
from harness.grid.schema import Cell, GridSpec, is_own_file
from harness.records.files import sha256_of_file
from harness.records.results import read_result


@dataclass
class OwnData:
    """What is known of the files that cells train on; nothing of other data.

    By the set's name in `datasets`, None for the grid's one `data`.
    """

    contents: dict[str | None, str] = field(default_factory=dict)
    """SHA-256."""
    faults: dict[str | None, str] = field(default_factory=dict)
    """Why the content is not known, in one line."""

    def fault_of(self, cells: Iterable[Cell]) -> str | None:
        """Why it is not known what some of the cells are trained on."""
        trained = (cell.data_name for cell in cells if cell.train is not None)
        return next((self.faults[name] for name in trained if name in self.faults), None)


def find_own_data(grid: GridSpec, data_root: Path | None, runs_dir: Path) -> OwnData:
    """The content of a grid's training files, as far as they are one's own."""
    found = OwnData()
    for name in grid.data_names:
        if is_own_file(data := grid.data_of(name), grid.world):
            try:
                found.contents[name] = _own_content(data, data_root, runs_dir)
            except UsageError as fault:
                found.faults[name] = f"{data_place(name)}.path: {fault}"
    return found


def _own_content(data: DataSpec, data_root: Path | None, runs_dir: Path) -> str:
    """The content of a file of one's own.

    Raises:
        UsageError: it is not known.
    """
    file = data_file(data, data_root)
    if file is not None and file.is_file():
        try:
            return sha256_of_file(file)
        except OSError as error:
            raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    known = trained_on(data, runs_dir)
    if len(known) == 1:
        return known.pop()
    where = "--data-root (or ZBENCH_DATA_ROOT) names the folder that it is in"
    if known:
        listed = ", ".join(sorted(sha256[:12] for sha256 in known))
        raise UsageError(
            f"{data.path}: {len(known)} files of this name were trained on in {runs_dir} "
            f"({listed}); {where}"
        )
    if file is not None:
        raise UsageError(f"no file {file}; put it there, or correct the path or --data-root")
    raise UsageError(f"{data.path}: is relative; {where}")


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
