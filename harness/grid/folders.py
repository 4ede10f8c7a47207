"""TODO: say what this is for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.errors import MethodError, StorageError, UsageError
from harness.grid.schema import Cell

LOG_FILE = "log.txt"


STEPS_FILE = "steps.parquet"


ADAPTER_FOLDER = "adapter"


CHECKPOINTS_FOLDER = "checkpoints"


ITEMS_FOLDER = "items"


CELL_FILE = "cell.json"


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
    except (OSError, ValueError, KeyError, MethodError):  # told when the cell is asked for
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
