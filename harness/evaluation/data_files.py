"""The local files of lm-eval's tasks: rows in every format of `readers.records`, or plain text.

Imports nothing heavy: planning looks at them too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.pins import Content, content_sha256
from harness.errors import DataError, did_you_mean, one_line
from harness.readers.column_types import holds_bytes
from harness.readers.files import Unreadable, read_text
from harness.readers.formats import format_of
from harness.readers.parquet_files import read_columns, read_footer
from harness.readers.records import open_records

if TYPE_CHECKING:
    import pyarrow


PROSE_COLUMN = "text"
"""The column of plain text: a `.txt` is documents, with blank lines between them."""


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """A file's rows, whatever its form; all of its columns where none are named.

    Raises:
        Unreadable: it cannot be read, holds no rows, or lacks a column.
    """
    stat = path.stat() if path.is_file() else None
    key = None if columns is None else tuple(columns)
    return _read(path, key, stat and stat.st_size, stat and stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(
    path: Path, columns: tuple[str, ...] | None, _size: int | None, _changed: int | None
) -> pyarrow.Table:
    if format_of(path) == "parquet":
        types = read_footer(path).types
        names = list(types) if columns is None else columns
        pictures = [name for name in names if name in types and holds_bytes(types[name])]
        return read_columns(path, names, pictures=pictures)
    table = _table(path)
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise Unreadable(path, "content", f"has no column '{name}'{hint}")
    return table.select(list(columns))


def _table(path: Path) -> pyarrow.Table:
    """The rows of a file in which they stand one after the other, or of a packed one."""
    import pyarrow

    if _is_prose(path):
        text = read_text(path)
        documents = [one.strip() for one in re.split(r"\n[ \t]*\n", text) if one.strip()]
        return pyarrow.table({PROSE_COLUMN: documents})
    with open_records(path) as records:
        rows = list(records.read(list(records.types or ())))
    if not rows:
        raise Unreadable(path, "content", "holds no rows")
    names = dict.fromkeys(name for row in rows for name in row)
    cells: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    if records.all_texts:
        cells = {name: _typed(values) for name, values in cells.items()}
    try:
        return pyarrow.table(cells)
    except (ValueError, TypeError, OverflowError) as fault:
        said = f"holds values of different kinds in a column ({one_line(fault)})"
        raise Unreadable(path, "content", said) from fault


def columns_here(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        Unreadable: it cannot be read.
    """
    if format_of(path) == "parquet":
        return list(read_footer(path).types)
    return list(read_rows(path).column_names)


def _is_prose(path: Path) -> bool:
    """Whether a `.txt` is running text: of its first line a separator makes no names of columns."""
    if path.suffix.lower() != ".txt" or format_of(path) not in ("text", "CSV", "TSV"):
        return False
    first = next(line for line in read_text(path).splitlines() if line.strip())
    names = [one.strip() for one in re.split(r"[,;|\t]", first)]
    return len(names) < 2 or not all(re.fullmatch(r"\S+", name) for name in names)


_ABSENT = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"})
_NUMBERS: tuple[tuple[type, re.Pattern[str]], ...] = (
    (int, re.compile(r"[+-]?\d{1,18}")),
    (float, re.compile(r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?")),
)


def _typed(texts: list[str]) -> list[Any]:
    """The cells of a column of CSV as whole numbers, numbers or truths, where all of them are."""
    stated = [text for text in texts if text not in _ABSENT]
    for kind, form in _NUMBERS:
        if stated and all(map(form.fullmatch, stated)):
            return [None if text in _ABSENT else kind(text) for text in texts]
    if stated and {text.lower() for text in texts} <= {"true", "false"}:
        return [text.lower() == "true" for text in texts]
    return texts


def rows_content(rows: Sequence[Mapping[str, Any]]) -> Content:
    """The identity of rows: of their values by the columns' names, in order."""
    names = sorted({name for row in rows for name in row})
    plain = (json.loads(json.dumps([row.get(name) for name in names], default=str)) for row in rows)
    return Content(len(rows), content_sha256(plain))


def file_content(path: Path) -> Content:
    """The identity of a file's rows, whatever its form.

    Raises:
        Unreadable: it cannot be read.
    """
    stat = path.stat()
    return _content(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _content(path: Path, _size: int, _changed: int) -> Content:
    return rows_content(read_rows(path).to_pylist())


def check_rows(path: Path, task: str, columns: frozenset[str], *, least: int, what: str) -> None:
    """Checks that a file has the rows and columns that a task asks for.

    Args:
        columns: what the task's templates read.
        least: rows that are needed.
        what: what they are needed for, for the message.

    Raises:
        Unreadable: it cannot be read.
        DataError: it lacks a column, or rows.
    """
    table = read_rows(path)
    if table.num_rows < least:
        raise DataError(
            f"{path}: has {table.num_rows} rows, and {least} {what} of {task} are asked for; give "
            f"the whole file{', or lower shots' if least > 1 else ''}"
        )
    missing = sorted(columns - set(table.column_names))
    if missing:
        raise DataError(
            f"{path}: has no column '{missing[0]}', which {task} reads (it has "
            f"{', '.join(table.column_names)}); name its columns as the task does"
        )


def check_texts(path: Path, task: str, column: str) -> None:
    """Checks that every row of a file has a text in a column.

    Raises:
        Unreadable: it cannot be read.
        DataError: a row has none; the first such is named.
    """
    for number, value in enumerate(read_rows(path, [column])[column].to_pylist()):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{path}: row {number} (the first is 0) has no text in '{column}', and {task} "
                "scores each row's; fill it, or leave the row out"
            )
