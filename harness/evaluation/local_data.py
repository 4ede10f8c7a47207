"""Reads local parquet files as the data sets that lm-eval's tasks expect; names their faults."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from datasets import Dataset

from harness.errors import DataError


def read_split(
    path: Path, columns: Sequence[str], *, subject_column: str | None, subject: str | None
) -> Dataset:
    """A parquet file's rows, in memory: nothing is written to any cache.

    Only those of one subject where the column that tells subjects apart, and its value, are given.

    Raises:
        DataError: the file is missing, no parquet, empty, lacks a column, or has no row of the
            subject.
    """
    table = _table(path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: no column '{missing[0]}' (it has {', '.join(table.column_names)}); "
            "write the file again with the columns of the hub's data set"
        )
    if subject_column and subject is not None:
        table = table.filter(pyarrow.compute.equal(table[subject_column], subject))
    if not table.num_rows:
        which = f" of {subject_column} '{subject}'" if subject_column and subject else ""
        raise DataError(f"{path}: it holds no row{which}; copy the file again")
    return Dataset.from_dict(table.to_pydict())


def subjects_in(path: Path, subject_column: str) -> list[str]:
    """The sorted values of a file's subject column.

    Raises:
        DataError: the file is missing, no parquet, or lacks the column.
    """
    table = _table(path)
    if subject_column not in table.column_names:
        raise DataError(f"{path}: no column '{subject_column}'")
    return sorted(set(table[subject_column].to_pylist()))


def _table(path: Path) -> pyarrow.Table:
    # A group of tasks reads one file once per subject; the time stamp tells a new file apart.
    return _read_table(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read_table(path: Path, _modified: int) -> pyarrow.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except FileNotFoundError as fault:
        raise DataError(f"{path}: no such file") from fault
    except (pyarrow.ArrowException, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read as parquet ({reason}); copy the file again"
        ) from fault
