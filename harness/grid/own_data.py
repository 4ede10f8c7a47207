"""The content of the files of one's own that a grid's cells train on, which is their identity.

It is found where a file lies. Where that is not here, what the runs folder's cells were trained
on under the same path says it: so the commands agree on what is done, whatever flags they get.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.data.places import check_place, data_files, is_here, sha256_of_data
from harness.data.sets import inspect_data
from harness.data.spec import ALPACA, DataSpec, data_file, is_there
from harness.data.validation import validation_set
from harness.errors import StorageError, UsageError, ZbenchError
from harness.grid.folders import Runs, runs_text, stored_cells
from harness.grid.names import data_place
from harness.grid.own_encoders import OwnEncoders, find_own_encoders
from harness.grid.schema import Cell, GridSpec, is_own_file
from harness.records.results import read_result

TEMPLATE_TOKENS = 200
"""More than templates write around a row."""


@dataclass
class OwnData:
    """What is known of the files that cells train on; nothing of other data.

    By the set's name in `datasets`, None for the grid's one `data`.
    """

    contents: dict[str | None, str] = field(default_factory=dict)
    """SHA-256."""
    faults: dict[str | None, str] = field(default_factory=dict)
    """Why the content is not known, in one line."""
    settled: dict[str | None, DataSpec] = field(default_factory=dict)
    """Sets that say nothing of bad rows where they have none, and name the content of their
    validation files."""
    encoders: OwnEncoders = field(default_factory=OwnEncoders)

    def settle(self, grid: GridSpec) -> GridSpec:
        """The grid, with the sets and the methods' image encoders as they are settled."""
        grid = self.encoders.settle(grid)
        sets = {name: grid.data_of(name) for name in (None, *grid.datasets)} | self.settled
        return grid.model_copy(update={"data": sets.pop(None), "datasets": sets})

    def fault_of(self, cells: Sequence[Cell]) -> str | None:
        """Why it is not known what some of the cells are trained on."""
        if (fault := self.encoders.fault_of(cells)) is not None:
            return fault
        trained = (cell.data_name for cell in cells if cell.train is not None)
        return next((self.faults[name] for name in trained if name in self.faults), None)


def find_own_data(grid: GridSpec, data_root: Path | None, runs: Runs) -> OwnData:
    """The content of a grid's training files, as far as they are one's own."""
    found, names = OwnData(), dict[str, str]()
    found.encoders = find_own_encoders(grid, data_root, runs)
    for name in grid.data_names:
        data, place = _with_held_out(grid.data_of(name), data_root, runs), data_place(name)
        if is_own_file(data, grid.world):
            try:
                found.contents[name] = _own_content(data, data_root, runs)
            except UsageError as fault:
                found.faults[name] = f"{place}.path: {fault}"
                continue
            if _is_idle(data, _shortest_limit(grid, name), data_root, runs):
                data = data.model_copy(update={"on_bad_rows": None})
        found.settled[name] = data
        same = repr(
            (found.contents.get(name, (data.source, data.revision, data.path)), data.stated)
        )
        if (other := names.setdefault(same, place)) != place:
            found.faults[name] = f"{place}: holds the same rows as {other}; keep one"
    return found


def _with_held_out(data: DataSpec, data_root: Path | None, runs: Runs) -> DataSpec:
    """The set, with the content of its validation rows where they lie in files of one's own."""
    if data.validation is None or data.validation.fraction is not None:
        return data
    held_out, known = validation_set(data), set[str]()
    if is_here(held_out, data_root):
        with contextlib.suppress(ZbenchError, OSError):  # told where the files are looked at
            known = {sha256_of_data(data_files(held_out, data_root))}
    else:
        stated = data.validation.model_dump(exclude={"sha256"})
        for _, cell in stored_cells(runs):
            then = dict(cell["data"].get("validation") or {}) if _is_of(cell, data) else {}
            if (sha256 := then.pop("sha256", None)) and then == stated:
                known.add(sha256)
    if len(known) != 1:
        return data
    found = data.validation.model_copy(update={"sha256": known.pop()})
    return data.model_copy(update={"validation": found})


def _shortest_limit(grid: GridSpec, name: str | None) -> int:
    """The least `max_length` that rows of a set are cut at."""
    blocks = (block for block in grid.blocks if block.data == name)
    trains = (choice.train for block in blocks for choice in block.methods)
    return min((train.max_length for train in trains if train is not None), default=0)


def _is_idle(data: DataSpec, max_length: int, data_root: Path | None, runs: Runs) -> bool:
    """Whether what is said of bad rows changes none; where no file is here, cells tell it.

    Which rows are cut, and so dropped, the tokenizer says, which may not be here: `drop` counts as
    idle where all rows are too short for that.
    """
    if data.on_bad_rows in (None, "fail"):  # `fail` is in no id
        return False
    if not is_here(data, data_root):
        stored = [cell["data"] for _, cell in stored_cells(runs) if _is_of(cell, data)]
        return bool(stored) and all("on_bad_rows" not in one for one in stored)
    sets = [data]
    if data.validation is not None and data.validation.fraction is None:
        sets.append(validation_set(data))
    added = TEMPLATE_TOKENS + len((data.system or "").encode())
    try:
        reports = [inspect_data(one, data_root).report for one in sets]
    except ZbenchError:  # told where the file is looked at
        return False
    return not any(
        report.policy_matters
        or (data.on_bad_rows == "drop" and report.longest + added > max_length)
        for report in reports
        if report is not None
    )


def _own_content(data: DataSpec, data_root: Path | None, runs: Runs) -> str:
    """The content of a file of one's own.

    Raises:
        UsageError: it is not known.
    """
    file = data_file(data, data_root)
    if file is not None and is_there(file):
        try:
            check_place(data, data_root)
            return sha256_of_data(data_files(data, data_root))
        except OSError as error:
            raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
        except ZbenchError as error:
            raise UsageError(str(error)) from error
    known = trained_on(data, runs)
    if len(known) == 1:
        return known.pop()
    where = "--data-root (or ZBENCH_DATA_ROOT) names the folder that it is in"
    if known:
        listed = ", ".join(sorted(sha256[:12] for sha256 in known))
        raise UsageError(
            f"{data.path}: {len(known)} files of this name were trained on in {runs_text(runs)} "
            f"({listed}); {where}"
        )
    if file is not None:
        raise UsageError(f"no file {file}; put it there, or correct the path or --data-root")
    raise UsageError(f"{data.path}: is relative; {where}, or put it beside the grid file")


def trained_on(data: DataSpec, runs: Runs) -> set[str]:
    """The SHA-256 of every file that cells of a runs folder were trained on under this path."""
    found: set[str] = set()
    for folder, cell in stored_cells(runs):
        if (sha256 := _content(cell, data, folder)) is not None:
            found.add(sha256)
    return found


def _is_of(cell: dict[str, Any], data: DataSpec) -> bool:
    """Whether a stored cell was trained on a file of this path."""
    stored = cell.get("data")
    same = isinstance(stored, dict) and stored.get("path") == data.path
    return same and bool(cell.get("train"))


def _content(cell: dict[str, Any], data: DataSpec, folder: Path) -> str | None:
    if not _is_of(cell, data):
        return None
    if "data_sha256" in cell:
        sha256 = cell["data_sha256"]
        return sha256 if isinstance(sha256, str) else None
    if cell["data"].get("source") in (
        None,
        ALPACA,
    ):  # of an earlier version: its result alone says it
        with contextlib.suppress(StorageError):
            result = read_result(folder)
            if result is not None and result.train is not None:
                return result.train.data_file_sha256
    return None
