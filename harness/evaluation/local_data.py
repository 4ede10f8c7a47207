"""Reads local files as the data sets that lm-eval's tasks expect; names their faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute
from datasets import Dataset, Image, LargeList, List

from harness.errors import DataError
from harness.evaluation.data_files import read_rows


def read_split(
    path: Path, columns: Sequence[str] | None, *, subject_column: str | None, subject: str | None
) -> Dataset:
    """A file's rows, in memory: nothing is written to any cache; all columns where none are named.

    Only those of one subject where the column that tells subjects apart, and its value, are given.

    Raises:
        Unreadable: the file is missing, of no known form, or lacks a column.
        DataError: it has no row, or none of the subject.
    """
    if columns is None:
        table = read_rows(path)
    else:
        wanted = [*columns, subject_column] if subject_column else columns
        table = read_rows(path, list(dict.fromkeys(wanted)))
    if subject_column and subject is not None:
        table = table.filter(pyarrow.compute.equal(table[subject_column], subject))
    if not table.num_rows:
        which = f" of {subject_column} '{subject}'" if subject_column and subject else ""
        raise DataError(f"{path}: it holds no row{which}; give the whole file")
    return Dataset.from_dict(table.to_pydict())


def undecoded(rows: Dataset) -> Dataset:
    """The rows with pictures, in lists too, as `{bytes, path}`, which `datasets` would make
    Pillow's of."""
    for name, feature in rows.features.items():
        if (plain := _undecoded(feature)) != feature:
            rows = rows.cast_column(name, plain)
    return rows


def _undecoded(feature: Any) -> Any:
    if isinstance(feature, Image):
        return Image(decode=False)
    if isinstance(feature, List | LargeList):
        return replace(feature, feature=_undecoded(feature.feature))
    if isinstance(feature, dict):
        return {name: _undecoded(one) for name, one in feature.items()}
    return feature


def subjects_in(path: Path, subject_column: str) -> list[str]:
    """The sorted values of a file's subject column.

    Raises:
        Unreadable: the file is missing, of no known form, or lacks the column.
    """
    return sorted(set(read_rows(path, [subject_column])[subject_column].to_pylist()))
