"""Rows of any file of rows from outside, as mappings of columns to values.

The format is told from the content. Files are read in bounded memory, also packed ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.readers.arrow_files import arrow_rows, arrow_types
from harness.readers.column_types import holds_bytes
from harness.readers.csv_rows import CsvRows
from harness.readers.files import Unreadable, check_file
from harness.readers.formats import HEAD_BYTES, format_of_head
from harness.readers.json_rows import json_rows
from harness.readers.packed import unpacked, unpacked_file
from harness.readers.parquet_files import read_batches, read_footer

if TYPE_CHECKING:
    import pyarrow

Record = Mapping[str, Any]
READ = "parquet, JSON, JSON Lines, CSV, TSV and Arrow are read, also packed by gzip or zstd"
PICTURES = "a picture or other bytes"
"""What stands in the place of a value that is no text, number or list of them."""


@dataclass(frozen=True)
class Records:
    """The rows of one file, which are read once."""

    path: Path
    types: Mapping[str, pyarrow.DataType] | None
    """The columns of a table, in order; None of JSON, each of whose rows has its own."""
    read: Callable[[Sequence[str]], Iterator[Record]]
    """Yields the rows with some columns of a table, or all that a row of JSON has."""
    all_texts: bool = False
    """Whether the format has no other values, as CSV."""


@contextlib.contextmanager
def open_records(path: Path, known: Collection[str] = ()) -> Iterator[Records]:
    """Gives the rows of a file.

    Args:
        path: the file.
        known: names that columns may have: a text whose first line is one of them is CSV.

    Raises:
        Unreadable: it cannot be read, or is of no format with rows.
    """
    check_file(path)
    with unpacked(path) as stream:
        head = stream.read(HEAD_BYTES)
    kind = format_of_head(head)
    if kind in ("text", "XML"):  # a CSV of one column has no separators
        first = head.decode("utf-8-sig", "replace").splitlines()[0]
        kind = "CSV" if first in known or ".csv" in path.suffixes else kind
    if kind == "parquet":
        with unpacked_file(path) as file:
            types = read_footer(file).types
            pictures = {name for name, kind in types.items() if holds_bytes(kind)}
            yield Records(
                path,
                types,
                lambda columns: table_rows(read_batches(file, columns, pictures=pictures)),
            )
    elif kind in ("an Arrow file (Feather)", "an Arrow stream"):
        with unpacked_file(path) as file:
            yield Records(path, arrow_types(file), lambda columns: arrow_rows(file, columns))
    elif kind in ("JSON", "JSON Lines"):
        with unpacked(path) as stream:
            yield Records(path, None, lambda _columns: json_rows(stream, path))
    elif kind in ("CSV", "TSV"):
        import pyarrow

        with unpacked(path) as stream:
            rows = CsvRows(stream, path)
            types = dict.fromkeys(rows.columns, pyarrow.string())
            yield Records(path, types, lambda _columns: iter(rows), all_texts=True)
    else:
        advice = "fetch the file itself, not the page that shows it"
        raise Unreadable(
            path,
            "other format",
            f"is {kind}, no file of rows ({READ})",
            advice if kind == "a web page" else None,
        )


def table_rows(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Record]:
    """Yields the rows of a table's batches."""
    for batch in batches:
        yield from batch.to_pylist()
