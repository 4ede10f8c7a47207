"""Reading parquet from outside: the footer alone, or columns in batches of bounded size.

A few kB of parquet may stand for gigabytes, since equal values are stored once. So texts are first
read as their distinct values with numbers; what they come to is added up before it is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import one_line, plain_message
from harness.readers.column_types import (
    holds_bytes,
    is_bytes,
    is_list,
    is_plain,
    is_text,
    may_hold_pictures,
    plain_type,
)
from harness.readers.files import Unreadable, check_file, unreadable
from harness.readers.formats import format_of

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 65_536
"""Rows that are read at once, at most."""
NESTED_ROWS = 4096
"""The same, where texts cannot be read as numbers."""
PICTURE_ROWS = 64
"""The same, where rows hold pictures."""
MAX_BATCH_BYTES = 128 * 2**20
"""Texts that are in memory at once, at most; larger batches are cut into parts."""
MAX_ROW_BYTES = 64 * 2**20
"""Texts of one row."""
MAX_TABLE_BYTES = 2 * 2**30
"""Texts of a table that is read whole."""
MAX_TABLE_VALUES = 10_000_000
"""Values of a table that is read whole."""
MAX_GROUP_VALUES = 2**26
"""Values in one row group of one column: lists may hold any number of empty ones."""
MAGIC = b"PAR1"

Kind = Literal["text", "plain", "picture"]
"""What a column may hold: text; or anything that JSON can say (text, numbers, lists of them); or
pictures (bytes, or base64)."""
_DUE: Mapping[Kind, tuple[Callable[[pyarrow.DataType], bool], str]] = {
    "text": (is_text, "text"),
    "plain": (is_plain, "text, numbers or lists of them"),
    "picture": (may_hold_pictures, "pictures as bytes"),
}


@dataclass(frozen=True)
class Footer:
    """What a parquet file says of itself, without its rows being read."""

    path: Path
    num_rows: int
    types: Mapping[str, pyarrow.DataType]
    """By column, in order."""

    def check(self, columns: Mapping[str, Kind]) -> None:
        """Checks that columns are there and hold what is due.

        Raises:
            Unreadable: one is missing, or holds something else.
        """
        missing = [name for name in columns if name not in self.types]
        if missing:
            several = "s" * (len(missing) > 1)
            raise Unreadable(
                self.path,
                "content",
                f"lacks the column{several} {', '.join(missing)} (it has {_listed(self.types)})",
                "give a file with these columns, or rename its own",
            )
        for name, kind in columns.items():
            found = self.types[name]
            fits, due = _DUE[kind]
            if not fits(found):
                raise Unreadable(
                    self.path,
                    "content",
                    f"column {name} holds {one_line(found)[:60]}, not {due}",
                    f"write the column as {due}",
                )


def read_footer(path: Path) -> Footer:
    """What a parquet file says of itself.

    Raises:
        Unreadable: it is no parquet file, or cut off, or damaged.
    """
    return _footer_of(path, _open(path))


def read_batches(
    path: Path, columns: Sequence[str], *, pictures: Collection[str] = ()
) -> Iterator[pyarrow.RecordBatch]:
    """Yields the columns' rows in order, in batches whose texts are at most MAX_BATCH_BYTES.

    Texts come as plain strings, whatever form the file has them in, and are valid Unicode. Columns
    of `pictures` may hold bytes; batches are small then.

    Raises:
        Unreadable: the file cannot be read, lacks a column, is damaged, or has a row that is larger
            than MAX_ROW_BYTES.
    """
    read_footer(path).check({n: "picture" if n in pictures else "plain" for n in columns})
    file = _open(path, as_numbers=True)
    _check_groups(path, file)
    start = 0
    with _faults(path):
        for group in range(file.metadata.num_row_groups):
            for batch in _group_batches(path, file, group, list(columns)):
                _check_values(path, batch, start)
                yield from _plain_parts(path, batch, start)
                start += batch.num_rows


def _group_batches(
    path: Path, file: Any, group: int, columns: list[str]
) -> Iterator[pyarrow.RecordBatch]:
    """Yields one row group's batches, with texts as numbers of their distinct values."""
    import pyarrow

    if any(holds_bytes(file.schema_arrow.field(name).type) for name in columns):
        for batch in _open(path).iter_batches(PICTURE_ROWS, [group], columns=columns):
            yield batch.select(columns)
        return
    batches = file.iter_batches(BATCH_ROWS, [group], columns=columns, use_threads=False)
    try:
        first = next(batches, None)
    except (pyarrow.ArrowNotImplementedError, OSError):
        # Of some encodings, and of texts in lists where many are distinct: what is read is not much
        # more than what is stored. A damaged file fails again.
        batches, first = _open(path).iter_batches(NESTED_ROWS, [group], columns=columns), None
    if first is not None:
        yield first.select(columns)
    for batch in batches:
        yield batch.select(columns)


def read_columns(
    path: Path,
    columns: Sequence[str],
    *,
    max_bytes: int = MAX_TABLE_BYTES,
    pictures: Collection[str] = (),
) -> pyarrow.Table:
    """The columns of a file that is small enough to be read whole; of `pictures` see
    `read_batches`.

    Raises:
        Unreadable: as `read_batches`, or it is larger.
    """
    import pyarrow

    values = _number_of_values(path, _open(path), columns)
    if values > MAX_TABLE_VALUES:
        limit = f"{values:,} values, at most {MAX_TABLE_VALUES:,} are read at once"
        raise Unreadable(path, "too large", f"is too large ({limit})")
    batches, total = [], 0
    for batch in read_batches(path, columns, pictures=pictures):
        batches.append(batch)
        total += batch.nbytes
        if total > max_bytes:
            limit = f"{max_bytes / 2**30:.3g} GiB"
            raise Unreadable(path, "too large", f"has rows of more than {limit} of text")
    if batches:
        return pyarrow.Table.from_batches(batches)
    types = read_footer(path).types
    fields = [(name, plain_type(types[name])) for name in columns]
    return pyarrow.schema(fields).empty_table()


def _open(path: Path, *, as_numbers: bool = False) -> Any:
    """The file, opened; `as_numbers` gives texts as numbers of their distinct values."""
    import pyarrow.parquet

    size = check_file(path)
    with _faults(path), path.open("rb") as file:
        head = file.read(len(MAGIC))
        file.seek(-min(size, len(MAGIC)), 2)
        tail = file.read()
    if head != MAGIC or tail != MAGIC:
        raise _no_parquet(path, cut=head == MAGIC and tail != b"PARE")
    with _faults(path):
        opened = pyarrow.parquet.ParquetFile(path)
        if not as_numbers:
            return opened
        schema = opened.metadata.schema
        leaves = [schema.column(index) for index in range(len(schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        return pyarrow.parquet.ParquetFile(path, read_dictionary=texts)


def _no_parquet(path: Path, *, cut: bool) -> Unreadable:
    if cut:
        return Unreadable(path, "cut off", "is a parquet file whose end is missing")
    found = "encrypted parquet" if (found := format_of(path)) == "parquet" else found
    advice = "write it as parquet without encryption" if "encrypted" in found else None
    if found == "a web page":
        advice = "fetch the file itself, not the page that shows it"
    return Unreadable(
        path,
        "other format",
        f"is {found}, where parquet is read",
        advice or "convert it to parquet, the one format that is read",
    )


def _footer_of(path: Path, opened: Any) -> Footer:
    with _faults(path):
        schema, metadata = opened.schema_arrow, opened.metadata
        types = dict(zip(schema.names, schema.types, strict=True))
        if len(types) < len(schema.names):
            twice = next(name for name in types if schema.names.count(name) > 1)
            raise Unreadable(
                path, "content", f"has the column {one_line(twice)} more than once", "rename one"
            )
        return Footer(path, int(metadata.num_rows), types)


def _number_of_values(path: Path, opened: Any, columns: Sequence[str]) -> int:
    """Values of some columns in all rows, those in lists one by one."""
    with _faults(path):
        return sum(
            int(chunk.num_values)
            for chunk in _chunks(opened)
            if chunk.path_in_schema in columns or chunk.path_in_schema.split(".")[0] in columns
        )


def _chunks(opened: Any) -> Iterator[Any]:
    """Yields what the footer says of each column in each row group."""
    groups = (opened.metadata.row_group(n) for n in range(opened.metadata.num_row_groups))
    return (group.column(n) for group in groups for n in range(group.num_columns))


def _check_groups(path: Path, opened: Any) -> None:
    with _faults(path):
        for chunk in _chunks(opened):
            if chunk.num_values > MAX_GROUP_VALUES:
                raise Unreadable(
                    path,
                    "too large",
                    f"has {chunk.num_values:,} values of {chunk.path_in_schema} in one of its row "
                    f"groups, at most {MAX_GROUP_VALUES:,} are read",
                    "write it with smaller row groups",
                )


def _check_values(path: Path, batch: pyarrow.RecordBatch, start: int) -> None:
    """Checks that texts are Unicode."""
    import pyarrow

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as fault:
            raise Unreadable(
                path,
                "content",
                f"column {name} holds what is no text in UTF-8, in rows {start} to "
                f"{start + batch.num_rows - 1} ({plain_message(fault)[:80]})",
                "write its texts as UTF-8",
            ) from fault


def _plain_parts(
    path: Path, batch: pyarrow.RecordBatch, start: int
) -> Iterator[pyarrow.RecordBatch]:
    """Yields a batch with its texts as plain strings, in parts that fit."""
    import pyarrow

    size = sum(_text_bytes(column) for column in batch.columns)
    if size > MAX_ROW_BYTES and batch.num_rows == 1:
        limit = f"{size / 2**20:,.0f} MiB, at most {MAX_ROW_BYTES / 2**20:,.0f} are read"
        raise Unreadable(path, "too large", f"row {start} has too much text ({limit})")
    if size > MAX_BATCH_BYTES:
        half = batch.num_rows // 2
        yield from _plain_parts(path, batch.slice(0, half), start)
        yield from _plain_parts(path, batch.slice(half), start + half)
        return
    fields = [(field.name, plain_type(field.type)) for field in batch.schema]
    yield batch.cast(pyarrow.schema(fields))


def _text_bytes(column: pyarrow.Array) -> int:
    """Bytes of a column's texts once each stands by itself."""
    import pyarrow
    import pyarrow.compute as compute

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        lengths = compute.binary_length(column.dictionary)
        return int(compute.sum(compute.take(lengths, column.indices)).as_py() or 0)
    if pyarrow.types.is_struct(kind):
        return sum(_text_bytes(child) for child in column.flatten())
    if is_list(kind):
        return _text_bytes(column.flatten())
    return int(column.nbytes) if is_text(kind) or is_bytes(kind) else 0


def _listed(names: Mapping[str, object], most: int = 12) -> str:
    shown = ", ".join(one_line(name)[:40] for name in list(names)[:most])
    return shown + (f", and {len(names) - most} more" if len(names) > most else "")


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Raises what pyarrow says of a file in one line."""
    import pyarrow

    try:
        yield
    except OSError as fault:
        if fault.errno is not None:  # the operating system's
            raise unreadable(path, fault) from fault
        raise _damaged(path, fault) from fault
    # Of damaged pages pyarrow says any of these; MemoryError is a size that is none.
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError) as fault:
        raise _damaged(path, fault) from fault
    except MemoryError as fault:
        raise Unreadable(path, "too large", "does not fit in memory") from fault


def _damaged(path: Path, fault: Exception) -> Unreadable:
    return Unreadable(path, "damaged", f"is damaged parquet ({plain_message(fault)[:120]})")
