"""What is done, to do, running or failed: read from the cells' folders alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from harness.checkpoint import local_folder
from harness.errors import StorageError, UsageError, ZbenchError, did_you_mean
from harness.evaluation.tasks import TaskSpec, data_fingerprint, request_key
from harness.fingerprint import known_sha256_of_file, known_sha256_of_files
from harness.grid import Cell
from harness.results import CellResult, read_result

Status = Literal["done", "to do", "running", "failed", "stale"]
"""`stale`: what it was made from has changed since; nothing of it is re-used."""

LOG_FILE = "log.txt"
STEPS_FILE = "steps.parquet"
ADAPTER_FOLDER = "adapter"
CHECKPOINTS_FOLDER = "checkpoints"
ITEMS_FOLDER = "items"
CELL_FILE = "cell.json"


@dataclass(frozen=True)
class CellState:
    """A cell and how far it is."""

    cell: Cell
    folder: Path
    result: CellResult | None
    status: Status
    missing: tuple[TaskSpec, ...]
    """Benchmarks without a score."""
    fault: str | None = None
    """Why it failed or is stale, in one line."""

    @property
    def trained(self) -> bool:
        """Whether nothing is left to train."""
        return is_trained(self.cell, self.result)


class CellBusy(StorageError):
    """Another process is running the cell."""


def cell_folder(runs_dir: Path, cell: Cell) -> Path:
    """Returns the folder of a cell: the one that carries its id, under whatever label."""
    cells = runs_dir / "cells"
    found = sorted(cells.glob(f"*--{cell.id}")) if cells.is_dir() else []
    return found[0] if found else cells / f"{cell.slug}--{cell.id}"


def items_path(folder: Path, benchmark: str, key: str) -> Path:
    """Returns the file of the per-item records of one evaluation."""
    return folder / ITEMS_FOLDER / f"{benchmark}--{key}.parquet"


def is_trained(cell: Cell, result: CellResult | None) -> bool:
    """Returns whether nothing is left to train for `cell`."""
    return cell.train is None or (result is not None and result.train is not None)


def missing_tasks(
    cell: Cell, result: CellResult | None, data_root: Path | None
) -> tuple[TaskSpec, ...]:
    """Returns the tasks of `cell` that have no score.

    A score counts when it answers the same request on the same items; the items are compared
    where the data root holds them.
    """
    if result is None:
        return cell.tasks
    have = {(score.key, score.data_sha256) for score in result.scores}
    keys = {key for key, _ in have}
    missing = []
    for task in cell.tasks:
        key = request_key(task)
        items = data_fingerprint(task, data_root) if key in keys else None
        if key not in keys or (items is not None and (key, items) not in have):
            missing.append(task)
    return tuple(missing)


def read_state(cell: Cell, *, runs_dir: Path, data_root: Path | None) -> CellState:
    """Returns how far a cell is; a result that cannot be read is a failure of that cell alone."""
    folder = cell_folder(runs_dir, cell)
    try:
        result = read_result(folder)
    except StorageError as unreadable:
        return CellState(cell, folder, None, "failed", cell.tasks, str(unreadable))
    try:
        missing = missing_tasks(cell, result, data_root)
    except ZbenchError:
        missing = cell.tasks  # its data is unreadable: the run itself tells what is wrong
    stale = None if result is None else changed_input(cell, result, data_root)
    status: Status = "to do"
    fault = result.error.message if result is not None and result.error is not None else None
    if stale is not None:
        status, fault = "stale", stale
    elif is_trained(cell, result) and not missing:
        status = "done"
    elif is_running(folder):
        status = "running"
    elif fault is not None:
        status = "failed"
    return CellState(cell, folder, result, status, missing, fault)


def changed_input(cell: Cell, result: CellResult, data_root: Path | None) -> str | None:
    """Returns what a result was made from that is no longer the same, or None.

    A cell's id names its data and its model; this compares the content of the local files with
    what was used, where that takes no long reading.
    """
    folder = local_folder(cell.model, data_root)
    then = result.base.get("weights_sha256")
    if folder is not None and then is not None:
        now = known_sha256_of_files(sorted(folder.glob("*.safetensors")))
        if now not in (None, then):
            return _changed(cell, f"the weights in {folder}", then, now)
    data = None if data_root is None or cell.data.path is None else data_root / cell.data.path
    then = result.train.data_file_sha256 if result.train is not None else None
    if data is not None and then is not None:
        now = known_sha256_of_file(data)
        if now not in (None, then):
            return _changed(cell, str(data), then, now)
    return None


def _changed(cell: Cell, what: str, then: str, now: str | None) -> str:
    return (
        f"{cell.label}: {what} changed since the cell was made (SHA-256 {then[:12]}, now "
        f"{str(now)[:12]}); bring back what was used, or give another --runs-dir"
    )


def read_states(
    cells: Sequence[Cell], *, runs_dir: Path, data_root: Path | None
) -> list[CellState]:
    """Returns how far each cell is, in the order given."""
    return [read_state(cell, runs_dir=runs_dir, data_root=data_root) for cell in cells]


def select_cells(cells: Sequence[Cell], only: str | None) -> list[Cell]:
    """Returns the cells whose label or id contains every word of `only`.

    Raises:
        UsageError: no cell does.
    """
    if not only:
        return list(cells)
    words = only.split()
    chosen = [
        cell for cell in cells if all(word in cell.label or word in cell.id for word in words)
    ]
    if not chosen:
        raise UsageError(f"--only {only!r}: matches no cell; `zbench plan GRID` lists their labels")
    return chosen


def find_cell(cells: Sequence[Cell], name: str) -> Cell:
    """Returns the cell with this id (or the beginning of one) or label.

    Raises:
        UsageError: there is none, or several.
    """
    exact = [cell for cell in cells if name in (cell.label, cell.id, cell.slug)]
    if exact:
        return exact[0]
    begun = [cell for cell in cells if len(name) >= 4 and cell.id.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise UsageError(f"{name}: begins the ids of {len(begun)} cells; give more digits")
    hint = did_you_mean(name, [cell.label for cell in cells])
    raise UsageError(f"{name}: no such cell{hint}")


def stored_cells(runs_dir: Path) -> dict[str, list[Path]]:
    """Returns the folders of the cells that were begun, by each name they have: id, slug, label."""
    known: dict[str, list[Path]] = {}
    for file in sorted((runs_dir / "cells").glob(f"*/{CELL_FILE}")):
        slug, _, cell_id = file.parent.name.rpartition("--")
        for name in dict.fromkeys([cell_id, slug, stored_label(file.parent)]):
            if name is not None:
                known.setdefault(name, []).append(file.parent)
    return known


def stored_label(folder: Path) -> str | None:
    """Returns the label of the cell that a folder says it holds; None where it cannot be read."""
    try:
        record = json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
        return Cell.model_validate(record).label
    except (OSError, ValueError, KeyError):  # told when the cell is asked for
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a cell's folder for one process; the operating system frees it when that dies.

    Raises:
        CellBusy: another process holds it.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as fault:
        raise StorageError(
            f"{folder}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    with file:
        for _ in range(20):  # a reader of the state holds it for an instant
            if _try_lock(file, fcntl.LOCK_EX):
                break
            time.sleep(0.05)
        else:
            raise CellBusy(f"{folder}: another process is running this cell; wait for it")
        yield


def is_running(folder: Path) -> bool:
    """Returns whether a process holds the cell's folder."""
    try:
        file = (folder / ".lock").open("r+")
    except OSError:
        return False
    with file:
        return not _try_lock(file, fcntl.LOCK_SH)


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_writable(folder: Path) -> None:
    """Makes the folder and checks that a file can be written in it.

    Raises:
        UsageError: it cannot.
    """
    for place in (folder, folder / "cells"):
        probe = place / f".probe-{os.getpid()}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as fault:
            raise UsageError(
                f"{place}: cannot be written ({fault.strerror}); choose another folder with "
                "--runs-dir"
            ) from fault
