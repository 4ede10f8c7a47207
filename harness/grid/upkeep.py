"""What lies in a runs folder: whether it is whole, and what of it nobody needs any more."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import StorageError, TrainingError, one_line
from harness.grid.cell_files import file_fault
from harness.grid.folders import (
    ADAPTER_FOLDER,
    CELL_FILE,
    CHECKPOINTS_FOLDER,
    ITEMS_FOLDER,
    RESPONSES_FOLDER,
    id_of,
    stored_label,
)
from harness.grid.lease import CLAIM
from harness.grid.locks import CellBusy, is_running, locked
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from harness.models.trained_files import TRAIN_AGAIN, damaged_tensors
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.readers.tensor_files import tensor_header
from harness.records import picture_files
from harness.records.checkpoints import TEMPORARY, checkpoint_folders, other_entries
from harness.records.files import fresh_sha256_of_file
from harness.records.results import RESULT_FILE, CellResult, DamagedResult, read_result

_KILLED = re.compile(r"\..+\.[a-z0-9_]{8}")
"""What `records.files` writes in before it takes its name."""
IDLE_SECONDS = 3600.0
"""What lies beside the cells is left over once nothing was written in it for so long."""

Kind = Literal["damaged", "left over", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One thing that is to be known of a runs folder."""

    kind: Kind
    path: Path
    text: str
    """What was found; what becomes of it, or what to do."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.text}"


def verify_cell(folder: Path) -> Iterator[Finding]:
    """Reads all files of a cell anew: what is damaged or left over in its folder."""
    try:
        if is_running(folder):
            yield Finding("not checked", folder, "its cell is running now")
            return
        result = read_result(folder, id_of(folder))
    except DamagedResult as fault:
        path = folder / RESULT_FILE
        yield Finding("damaged", path, _after(fault, path))
        result = None
    except StorageError as fault:
        yield Finding("not checked", folder, _after(fault, folder))
        return
    if (folder / CELL_FILE).exists() and stored_label(folder) is None:
        again = "the cell's next run writes it again"
        yield Finding("damaged", folder / CELL_FILE, f"describes no cell; {again}")
    if result is not None:
        yield from verify_files(folder, result)
    yield from _verify_checkpoints(folder / CHECKPOINTS_FOLDER)
    for path in leftovers(folder):
        yield Finding("left over", path, "of a write that was killed; `zbench clean` removes it")


def verify_files(folder: Path, result: CellResult) -> Iterator[Finding]:
    """Looks at every file that belongs to a result."""
    known = result.files_sha256
    tables = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    for name in sorted({*known, *tables}):
        if any(_is_temporary(part) for part in Path(name).parts):
            continue
        fault = file_fault(folder, name, known.get(name), fresh_sha256_of_file)
        if fault is not None:
            kind: Kind = "damaged" if fault.damaged else "not checked"
            yield Finding(kind, fault.path, f"{fault.found}; {fault.remedy}")
    if result.train is not None:
        folder = folder / ADAPTER_FOLDER
        if (said := _damage_of_weights(folder, result.train.weights_sha256)) is not None:
            yield Finding("damaged", folder, said.removeprefix(f"{folder}: "))


def _damage_of_weights(folder: Path, expected: str | None) -> str | None:
    """What is wrong with the trained weights; those of an older version are read by their heads."""
    try:
        if expected is None:
            files = sorted(folder.glob("*.safetensors"))
            if not files:
                return f"holds no trained weights; {TRAIN_AGAIN}"
            for file in files:
                tensor_header(file)
                if file.name == WEIGHTS_FILE:
                    read_json_object(folder / CONFIG_FILE)
    except Unreadable as fault:
        return str(fault)
    return damaged_tensors(folder, expected)


def _verify_checkpoints(folder: Path) -> Iterator[Finding]:
    """Looks at the checkpoints of a training that is not finished."""
    found = checkpoint_folders(folder)
    if found:
        from harness.training.checkpoint import check_checkpoint
    for number, path in enumerate(found):
        try:
            check_checkpoint(path)
        except TrainingError as fault:
            used = "the one before is used" if number + 1 < len(found) else "training begins again"
            yield Finding("damaged", path, f"{_after(fault, path)}; {used}")
    for path in other_entries(folder):
        yield Finding("left over", path, "is no checkpoint, and is not used")


def verify_rest(runs_dir: Path) -> Iterator[Finding]:
    """Looks at what lies beside the cells of a runs folder."""
    for path in left_beside(runs_dir):
        yield Finding("left over", path, "of a write that was killed; `zbench clean` removes it")
    for path in sorted((runs_dir / "cells").glob("*")):
        if path.is_dir() and id_of(path) is None and not _is_temporary(path.name):
            yield Finding("left over", path, "has no cell's id in its name: nothing reads it")
    for path in sorted((runs_dir / picture_files.FOLDER).glob("[!.]*")):
        if (said := _damage_of_features(path)) is not None:
            yield Finding("damaged", path, f"{said}; the pictures are encoded again when needed")
    database = runs_dir / "mlflow.db"
    if database.is_file() and (said := _damage_of_database(database)):
        yield Finding("damaged", database, f"{said}; `zbench sync` logs the cells' records anew")


def _damage_of_features(path: Path) -> str | None:
    try:
        picture_files.read_features(path)
    except (picture_files.DamagedFeatures, OSError) as fault:
        return _after(fault, path)
    return None


def _damage_of_database(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as fault:  # locked by who writes it: nothing is known
        return None if "locked" in str(fault) else one_line(fault)
    except sqlite3.DatabaseError as fault:
        return one_line(fault)
    return None if said == "ok" else one_line(said)


def leftovers(folder: Path) -> list[Path]:
    """What killed writes left in the folder of a cell that does not run."""
    names = (ITEMS_FOLDER, RESPONSES_FOLDER, CHECKPOINTS_FOLDER)
    places = (folder, *(folder / name for name in names))
    found = [path for place in places for path in place.glob(".*") if _is_temporary(path.name)]
    found += folder.glob(f"{CLAIM}*")
    old = (folder / CHECKPOINTS_FOLDER).glob
    return sorted({*found, *(path for pattern in TEMPORARY for path in old(pattern))})


def left_beside(runs_dir: Path) -> list[Path]:
    """What killed writes left beside the cells, some time ago."""
    before = time.time() - IDLE_SECONDS
    tuning = runs_dir / "tuning"
    places = (
        runs_dir, runs_dir / "cells", runs_dir / "world", runs_dir / picture_files.FOLDER, tuning,
        tuning / "draws",
    )  # fmt: skip
    found = (path for place in places for path in place.glob(".*"))
    mine = (path for path in found if _is_temporary(path.name) or _is_lock_or_probe(path))
    return sorted(path for path in mine if path.lstat().st_mtime < before)


def _is_lock_or_probe(path: Path) -> bool:
    own_lock = path.parent.name == picture_files.FOLDER and path.suffix == ".lock"
    return own_lock or path.name.startswith(".probe-")


def _is_temporary(name: str) -> bool:
    return _KILLED.fullmatch(name) is not None


def _after(fault: Exception, path: Path) -> str:
    """A fault's text without the path that it begins with."""
    return str(fault).removeprefix(f"{path}: ")


@dataclass(frozen=True)
class Waste:
    """Something that may be removed."""

    path: Path
    why: str
    size_bytes: int
    cell: Path | None = None
    """The cell's folder, which is locked while it is removed."""

    def remove(self) -> None:
        """Removes it.

        Raises:
            CellBusy: its cell has begun to run.
            StorageError: it cannot be removed.
        """
        try:
            with contextlib.nullcontext() if self.cell is None else locked(self.cell):
                _remove(self.path)
        except OSError as fault:
            raise StorageError(
                f"{self.path}: cannot be removed ({one_line(fault.strerror or fault)})"
            ) from fault


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def find_waste(runs_dir: Path, ids: Collection[str]) -> tuple[list[Waste], list[str]]:
    """What nobody needs: checkpoints of finished trainings, cells without a result that are in no
    grid, and what killed writes left. Never a result.

    Args:
        ids: of the cells of the grids that count.

    Returns:
        What may be removed, and one line on each cell that is left alone nevertheless.
    """
    waste = [_waste(path, "left by a killed write") for path in left_beside(runs_dir)]
    alone: list[str] = []
    for folder in sorted((runs_dir / "cells").glob("*--*")):
        if _is_temporary(folder.name):
            continue
        if folder.is_symlink() or not folder.is_dir():
            alone.append(f"{folder}: is no folder of its own; left alone")
            continue
        try:
            waste += _waste_of(folder, alone, wanted=id_of(folder) in ids)
        except CellBusy as busy:
            alone.append(str(busy))
        except StorageError as unknown:
            alone.append(f"{unknown}; left alone")
    return waste, alone


def _waste_of(folder: Path, alone: list[str], *, wanted: bool) -> Iterator[Waste]:
    if is_running(folder):
        raise CellBusy(f"{folder}: is running; left alone")
    result = read_result(folder, id_of(folder))
    empty = result is None or (result.train is None and not result.scores)
    if not wanted and empty:
        yield _waste(folder, "cell in no grid that is named, without a result", folder)
        return
    if not wanted:
        alone.append(f"{folder}: in no grid that is named, and holds a result: left alone")
    if result is not None and result.train is not None and (folder / CHECKPOINTS_FOLDER).is_dir():
        why = "checkpoints of a finished training"
        yield _waste(folder / CHECKPOINTS_FOLDER, why, folder)
    for path in leftovers(folder):
        if result is None or result.train is None or path.parent.name != CHECKPOINTS_FOLDER:
            yield _waste(path, "left by a killed write", folder)


def _waste(path: Path, why: str, cell: Path | None = None) -> Waste:
    files = [path] if not path.is_dir() or path.is_symlink() else path.rglob("*")
    return Waste(path, why, sum(file.lstat().st_size for file in files), cell)
