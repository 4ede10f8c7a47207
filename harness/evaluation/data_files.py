"""The local files of lm-eval's tasks: rows in parquet, JSON, JSON Lines or CSV, read and checked.

Imports nothing heavy: planning looks at them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.pins import Content, content_sha256
from harness.errors import DataError, did_you_mean, one_line
from harness.readers.files import Unreadable, read_text
from harness.readers.formats import format_of
from harness.readers.json_files import parse_json
from harness.readers.parquet_files import read_columns, read_footer

if TYPE_CHECKING:
    import pyarrow

FORMS = "parquet, JSON, JSON Lines or CSV"
MAX_BYTES = 2**32


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
    form = format_of(path)
    if form == "parquet":
        return read_columns(path, list(read_footer(path).types) if columns is None else columns)
    if form in ("JSON", "JSON Lines"):
        table = _table_of_json(path)
    elif form in ("CSV", "TSV") or (form == "text" and path.suffix == ".csv"):  # of one column
        table = _table_of_csv(path)
    else:
        raise Unreadable(path, "other format", f"is {form}, where {FORMS} is due")
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise Unreadable(path, "content", f"has no column '{name}'{hint}")
    return table.select(list(columns))


def _table_of_json(path: Path) -> pyarrow.Table:
    import pyarrow

    text = read_text(path, max_bytes=MAX_BYTES)
    rows: Any
    if text.lstrip().startswith("["):
        rows = parse_json(text, path)
    else:
        rows = [parse_json(line, path) for line in text.splitlines() if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(path, "content", "holds no rows: a list of objects, or one in each line")
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as fault:
        said = f"holds values of different kinds in a column ({one_line(fault)})"
        raise Unreadable(path, "content", said) from fault


def _table_of_csv(path: Path) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv

    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.readline()
    separator = next((one for one in (",", "\t", ";", "|") if one in head), ",")

    def read(types: Mapping[str, pyarrow.DataType] | None) -> pyarrow.Table:
        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )

    try:
        table = read(None)
        # A date or a time of day is shown as it is written.
        dated = [one.name for one in table.schema if pyarrow.types.is_temporal(one.type)]
        return read(dict.fromkeys(dated, pyarrow.string())) if dated else table
    except (pyarrow.ArrowInvalid, OSError) as fault:
        raise Unreadable(path, "content", f"is no whole CSV ({one_line(fault)})") from fault


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
