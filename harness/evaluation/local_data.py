"""Reads local parquet files as the data sets that lm-eval's tasks expect; names their faults."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow
import pyarrow.compute
from datasets import Dataset

from harness.errors import DataError
from harness.readers.parquet_files import read_columns


def read_split(
    path: Path, columns: Sequence[str], *, subject_column: str | None, subject: str | None
) -> Dataset:
    """A parquet file's rows, in memory: nothing is written to any cache.

    Only those of one subject where the column that tells subjects apart, and its value, are given.

    Raises:
        Unreadable: the file is missing, no parquet, or lacks a column.
        DataError: it has no row, or none of the subject.
    """
    wanted = [*columns, subject_column] if subject_column else columns
    table = _table(path, list(dict.fromkeys(wanted)))
    if subject_column and subject is not None:
        table = table.filter(pyarrow.compute.equal(table[subject_column], subject))
    if not table.num_rows:
        which = f" of {subject_column} '{subject}'" if subject_column and subject else ""
        raise DataError(f"{path}: it holds no row{which}; give the whole file")
    return Dataset.from_dict(table.to_pydict())


def subjects_in(path: Path, subject_column: str) -> list[str]:
    """The sorted values of a file's subject column.

    Raises:
        Unreadable: the file is missing, no parquet, or lacks the column.
    """
    return sorted(set(_table(path, [subject_column])[subject_column].to_pylist()))


def _table(path: Path, columns: Sequence[str]) -> pyarrow.Table:
    # A group of tasks reads one file once per subject; the time stamp tells a new file apart.
    return _read_table(path, tuple(columns), path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read_table(path: Path, columns: tuple[str, ...], _modified: int) -> pyarrow.Table:
    return read_columns(path, columns)
