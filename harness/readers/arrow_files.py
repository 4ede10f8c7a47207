"""Tables in Arrow's own format from outside: files (Feather) and streams, as `datasets` saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import one_line, plain_message
from harness.readers.column_types import holds_bytes
from harness.readers.files import Unreadable, unreadable

if TYPE_CHECKING:
    import pyarrow

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
BATCH_ROWS = 4096
"""Rows that are made at once."""
PICTURE_ROWS = 64
"""The same, where rows hold pictures."""


def arrow_types(path: Path) -> dict[str, pyarrow.DataType]:
    """The columns of an Arrow file, in order.

    Raises:
        Unreadable: it is none, or damaged, or has a column twice.
    """
    with _opened(path) as reader:
        names = reader.schema.names
        types = dict(zip(names, reader.schema.types, strict=True))
    if len(types) < len(names):
        twice = one_line(next(name for name in types if names.count(name) > 1))
        raise Unreadable(path, "content", f"has the column {twice} more than once", "rename one")
    return types


def arrow_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of an Arrow file with some of its columns, in order, texts in valid Unicode.

    Raises:
        Unreadable: it is damaged.
    """
    with _opened(path) as reader:
        for batch in _batches(reader):
            chosen = batch.select(list(columns))
            size = rows_at_once(chosen.schema)
            for start in range(0, chosen.num_rows, size):
                part = chosen.slice(start, size)
                part.validate(full=True)
                yield from part.to_pylist()


def rows_at_once(schema: pyarrow.Schema) -> int:
    """How many rows of such columns are made at once."""
    return PICTURE_ROWS if any(holds_bytes(field.type) for field in schema) else BATCH_ROWS


def _batches(reader: Any) -> Iterator[pyarrow.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow

    try:
        with path.open("rb") as file:
            head = file.read(len(FILE))
        with pyarrow.memory_map(str(path)) as mapped:
            is_file = head == FILE
            yield pyarrow.ipc.open_file(mapped) if is_file else pyarrow.ipc.open_stream(mapped)
    except OSError as fault:
        if fault.errno is not None:
            raise unreadable(path, fault) from fault
        raise _damaged(path, fault) from fault
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError) as fault:
        raise _damaged(path, fault) from fault
    except MemoryError as fault:
        raise Unreadable(path, "too large", "does not fit in memory") from fault


def _damaged(path: Path, fault: Exception) -> Unreadable:
    said = f"is damaged Arrow, or its end is missing ({plain_message(fault)[:120]})"
    return Unreadable(path, "damaged", said)
