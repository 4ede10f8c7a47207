"""Whether the files beside a result are those that were written with it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError, one_line
from harness.grid.folders import ITEMS_FOLDER, RESPONSES_FOLDER, items_path
from harness.records.files import SpecialFileError, sha256_of_file
from harness.records.results import RESULT_FILE, CellResult

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

MAX_BYTES = 2**32
"""Of a table as it lies in memory; MMLU's items have a few million."""
SCORED_AGAIN = "run-grid scores the benchmark again"
ANSWERED_AGAIN = "generate answers the set again"
READABLE = "give yourself the right to read it"
LEFT_OUT = "what it held is left out; bring back a copy of it, or move the cell's folder away"


@dataclass(frozen=True)
class FileFault:
    """A file of a cell that is not what its result says."""

    path: Path
    found: str
    """What is wrong with it."""
    remedy: str
    """What is done about it, or can be."""
    damaged: bool = True
    """False where it cannot be read and may be whole."""

    def __str__(self) -> str:
        what = "damaged" if self.damaged else "cannot be read"
        return f"{self.path}: {what} ({self.found}); {self.remedy}"


def file_faults(folder: Path, result: CellResult, *, thorough: bool = True) -> dict[str, FileFault]:
    """What is wrong with a cell's files, by their name in its folder; those of older versions are
    not known by their hashes, and are not looked at.

    Args:
        folder: the cell's.
        result: what lies in it.
        thorough: whether every file is read; else those alone that were written, replaced or moved
            since the result was, by their times: a disk that loses bits is not found so.
    """
    names = result.files_sha256
    if not thorough:
        names = {name: names[name] for name in _touched(folder, names)}
    found = {name: file_fault(folder, name, known) for name, known in names.items()}
    return {name: fault for name, fault in found.items() if fault is not None}


def _touched(folder: Path, names: Iterable[str]) -> list[str]:
    """The files that may have changed since the result was written.

    The clock of a file system may stand still for milliseconds: equal times say nothing.
    """
    place = os.fspath(folder)  # joined as texts: status asks for thousands
    try:
        result = os.stat(f"{place}/{RESULT_FILE}")
    except OSError:
        return list(names)
    written, moved = result.st_mtime_ns, max(result.st_mtime_ns, result.st_ctime_ns)
    touched = []
    for name in names:
        try:
            found = os.lstat(f"{place}/{name}")
            is_old = found.st_mtime_ns < written and found.st_ctime_ns < moved
        except OSError:
            is_old = False
        if not is_old or not stat.S_ISREG(found.st_mode):
            touched.append(name)
    return touched


def file_fault(
    folder: Path, name: str, expected: str | None, digest: Callable[[Path], str] = sha256_of_file
) -> FileFault | None:
    """What is wrong with a file of a cell, or None.

    Args:
        folder: the cell's.
        name: the file's in it.
        expected: its SHA-256; None of an older version's file, which is read as a table.
        digest: how a file's SHA-256 is found.
    """
    path = folder / name
    remedies = {ITEMS_FOLDER: SCORED_AGAIN, RESPONSES_FOLDER: ANSWERED_AGAIN}
    again = remedies.get(Path(name).parts[0], LEFT_OUT)
    try:
        sha256 = digest(path)
        if expected is None:
            read_table(path, None)
        elif sha256 != expected:
            return FileFault(path, "its SHA-256 is another", again)
    except (FileNotFoundError, NotADirectoryError):
        return FileFault(path, "it is missing", again)
    except IsADirectoryError:
        return FileFault(path, "it is a folder", again)
    except SpecialFileError:
        return FileFault(path, "it is no regular file", again)
    except StorageError:
        return FileFault(path, "it is no table", again)
    except OSError as fault:  # it may be whole: nothing is computed again
        return FileFault(path, one_line(fault.strerror or fault), READABLE, damaged=False)
    return None


def read_table(path: Path, sha256: str | None) -> pyarrow.Table:
    """A parquet file of a cell; `sha256` is its hash, where the result has one.

    Raises:
        StorageError: it is damaged, or cannot be read.
    """
    # Not pandas, nor what imports it (`pyarrow.parquet.read_table`): compare starts without.
    from pyarrow.parquet import ParquetFile

    again = SCORED_AGAIN if path.parent.name == ITEMS_FOLDER else LEFT_OUT
    try:
        if sha256 is not None and sha256_of_file(path) != sha256:
            raise ValueError("its SHA-256 is another")
        with ParquetFile(path) as file:
            claims = file.metadata
            groups = map(claims.row_group, range(claims.num_row_groups))
            if max(sum(group.total_byte_size for group in groups), claims.num_rows) > MAX_BYTES:
                raise ValueError("it claims more than any cell writes")
            return file.read()
    except Exception as fault:  # bytes that are no parquet make pyarrow raise errors of any kind
        logger.debug("%s cannot be read", path, exc_info=True)
        raise StorageError(f"{path}: damaged ({one_line(fault)}); {again}") from fault


def whole_scores(result: CellResult, faults: Mapping[str, FileFault]) -> CellResult:
    """A result without the scores that are to be made again, since their items are lost."""
    lost = {name for name, fault in faults.items() if fault.remedy == SCORED_AGAIN}
    if not lost:
        return result
    kept = tuple(
        score
        for score in result.scores
        if str(items_path(Path(), score.benchmark, score.evaluation)) not in lost
    )
    return replace(result, scores=kept)
