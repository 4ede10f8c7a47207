"""Instruction sets: what is checked of them before they are read, and their rows.

No torch here: planning imports this file.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.hub import check_reachable, read_hub, text_batches
from harness.data.pins import content_sha256, training_pin
from harness.data.rows import Instruction, Row
from harness.data.spec import DataSpec, data_file
from harness.errors import DataError
from harness.readers.files import Unreadable, check_file
from harness.readers.parquet_files import read_batches, read_footer
from harness.records.files import sha256_of_file

if TYPE_CHECKING:
    import pyarrow


COLUMNS = ("instruction", "input", "output")
WHOLE_ROWS, WHOLE_BYTES = 1_000_000, 512 * 2**20
"""Of a set with more rows or text only what is drawn is kept in memory."""


@dataclass(frozen=True)
class Instructions:
    """An instruction set and what it is."""

    rows: tuple[Row, ...]
    identity: Mapping[str, Any]
    """source, revision and commit (None for a local file), sha256 of the rows, num_rows."""
    file_sha256: str | None = None
    """Of the local file that they were read from; None for the hub's."""


@dataclass(frozen=True)
class DataFacts:
    """What is known of an instruction set before it is read."""

    rows: int | None
    """Its size; None of a hub data set whose size the grid does not state."""
    sha256: str | None
    """Of the local file's bytes; None where the hub is read."""
    path: Path | None
    """The local file."""
    text_bytes: int = 0
    """Of all its rows; 0 where they were not read."""


def read_instructions(spec: DataSpec, *, data_root: Path | None) -> Instructions:
    """Reads a whole instruction set.

    Args:
        spec: what to read.
        data_root: the folder that `spec.path` is relative to.

    Raises:
        ZbenchError: missing or broken file, missing column, empty cell, unexpected size, or no
            network.
    """
    return _collect(spec, data_root, None)


def read_chosen(spec: DataSpec, fraction: float, seed: int, data_root: Path | None) -> Instructions:
    """A fraction of the rows, as `choose` draws it; the identity is that of the whole set.

    Raises:
        ZbenchError: as `read_instructions`, or the fraction is less than half a row.
    """
    facts = inspect_data(spec, data_root)
    if (facts.rows or 0) > WHOLE_ROWS or facts.text_bytes > WHOLE_BYTES:
        assert facts.rows is not None
        data = _collect(spec, data_root, chosen_rows(facts.rows, fraction, seed))
    else:
        data = _whole(spec, data_root, facts.sha256)
        data = replace(data, rows=choose(data.rows, fraction, seed))
    return replace(data, file_sha256=facts.sha256)


@functools.lru_cache(maxsize=4)  # cells of one worker share a data set
def _whole(spec: DataSpec, data_root: Path | None, _sha256: str | None) -> Instructions:
    return read_instructions(spec, data_root=data_root)


def _collect(spec: DataSpec, data_root: Path | None, wanted: Sequence[int] | None) -> Instructions:
    """Goes through all rows once, for their identity; keeps those that are wanted, or all."""
    path = data_file(spec, data_root)
    if path is not None:
        place, batches = str(path), _text_batches(path)
        # Where a machine keeps a file is no part of what it is.
        name = path.name if Path(str(spec.path)).is_absolute() else spec.path
        source: dict[str, Any] = {"source": name, "revision": None, "commit": None}
    else:
        table, commit = read_hub(_hub_name(spec), spec.revision)
        place = f"{spec.source}@{spec.revision}"
        source = {"source": spec.source, "revision": spec.revision, "commit": commit}
        batches = text_batches(table, COLUMNS, place)
    places = None if wanted is None else {row: place for place, row in enumerate(wanted)}
    found: dict[int, Row] = {}
    count = 0

    def rows() -> Iterator[tuple[str, ...]]:
        nonlocal count
        for texts in _rows(batches, place):
            if places is None or count in places:
                found[count if places is None else places[count]] = Instruction(*texts)
            count += 1
            yield texts

    sha256 = content_sha256(rows())
    _check_number(spec, count, place)
    kept = tuple(found[position] for position in range(len(found)))
    return Instructions(kept, source | {"sha256": sha256, "num_rows": count})


def _text_batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    read_footer(path).check(dict.fromkeys(COLUMNS, "text"))
    return read_batches(path, COLUMNS)


def _rows(batches: Iterable[pyarrow.RecordBatch], place: str) -> Iterator[tuple[str, ...]]:
    for batch in _checked(batches, place):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _checked(batches: Iterable[pyarrow.RecordBatch], place: str) -> Iterator[pyarrow.RecordBatch]:
    """Yields batches in which every row has its texts.

    Raises:
        DataError: a text is missing, or there is no row.
    """
    start = 0
    for batch in batches:
        for name, column in zip(COLUMNS, batch.columns, strict=True):
            if column.null_count:
                row = start + column.is_null().to_pylist().index(True)
                raise DataError(
                    f"{place}: row {row} (the first is 0) has no {name}; fill it (an empty text "
                    "is allowed) or remove the row"
                )
        yield batch
        start += batch.num_rows
    if not start:
        raise DataError(f"{place}: has no rows; give a file with instructions")


def _check_number(spec: DataSpec, count: int, place: str) -> None:
    if spec.num_rows is not None and count != spec.num_rows:
        raise DataError(
            f"{place}: has {count} rows, the grid states num_rows {spec.num_rows}; "
            "give the right file, or correct num_rows"
        )


def inspect_data(spec: DataSpec, data_root: Path | None) -> DataFacts:
    """Checks all that training would refuse of a data set, as far as this machine can tell.

    Of the hub's nothing is read. A file is read once while its content stays the same, and not at
    all where it is the pinned one.

    Raises:
        ZbenchError: missing or broken file, missing column, empty cell, unexpected size.
    """
    path = data_file(spec, data_root)
    if path is None:
        check_reachable(_hub_name(spec), spec.revision)
        return DataFacts(spec.num_rows, None, None)
    check_file(path)
    sha256 = sha256_of_file(path)
    pin = training_pin(spec.source)
    if pin is not None and sha256 == pin.file_sha256:
        rows, text_bytes = pin.rows, 0
    else:
        rows, text_bytes = _inspected(path, sha256)
    _check_number(spec, rows, str(path))
    return DataFacts(rows, sha256, path, text_bytes)


@functools.lru_cache(maxsize=64)
def _inspected(path: Path, _sha256: str) -> tuple[int, int]:
    """The number of rows of a file, all of which are good, and the bytes of their texts."""
    rows = text_bytes = 0
    for batch in _checked(_text_batches(path), str(path)):
        rows += batch.num_rows
        text_bytes += batch.nbytes
    return rows, text_bytes


def content_of(spec: DataSpec, data_root: Path | None) -> str | None:
    """The identity of a local file's rows; None where the hub is read.

    Raises:
        ZbenchError: as `inspect_data`.
    """
    facts, pin = inspect_data(spec, data_root), training_pin(spec.source)
    if pin is not None and facts.sha256 == pin.file_sha256:
        return pin.content_sha256
    return None if facts.path is None else _content(facts.path, str(facts.sha256))


@functools.lru_cache(maxsize=64)
def _content(path: Path, _sha256: str) -> str:
    return content_sha256(_rows(_text_batches(path), str(path)))


def count_rows(spec: DataSpec, data_root: Path | None) -> int | None:
    """The size of an instruction set without reading it: as stated, or in the local file's footer.

    None where neither tells, or where the file is broken: `inspect_data` says how.
    """
    if spec.num_rows is not None:
        return spec.num_rows
    path = data_file(spec, data_root)
    try:
        return None if path is None else read_footer(path).num_rows
    except Unreadable:
        return None


def _hub_name(spec: DataSpec) -> str:
    """The repository that is read where there is no file.

    Raises:
        DataError: there is none.
    """
    if spec.source is None:
        raise DataError(
            f"data.path: {spec.path} is relative; --data-root names the folder that it is in"
        )
    return spec.source


def rows_sha256(rows: Sequence[Row]) -> str:
    """The `content_sha256` of the rows' content, whatever the format of their file."""
    return content_sha256(row.content for row in rows)


def num_examples(fraction: float, num_rows: int) -> int:
    """Number of rows that a fraction means: the nearest whole number, the even one of two."""
    return round(fraction * num_rows)


def choose(rows: Sequence[Row], fraction: float, seed: int) -> tuple[Row, ...]:
    """A fraction of the rows: nested, a smaller one is the beginning of a larger one.

    Raises:
        DataError: the fraction is less than half a row.
    """
    return tuple(rows[index] for index in chosen_rows(len(rows), fraction, seed))


def chosen_rows(num_rows: int, fraction: float, seed: int) -> list[int]:
    """The numbers of the rows that `choose` draws, in its order.

    Raises:
        DataError: the fraction is less than half a row.
    """
    count = num_examples(fraction, num_rows)
    if count == 0:
        raise DataError(
            f"fraction {fraction:g} of {num_rows} rows selects no example; the smallest that "
            f"selects one is {1 / num_rows:.2g}"
        )
    return shuffled(num_rows, f"fraction/{seed}", first=count)


def shuffled(count: int, key: str, *, first: int | None = None) -> list[int]:
    """0..count-1 sorted by the SHA-256 of `key/index`; of that order the `first` so many, or all.

    A hash, not a library's generator: the order is the same in every version of everything.
    """

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{key}/{index}".encode()).digest()

    if first is not None and first < count // 100:  # a heap of few, not a list of all
        return heapq.nsmallest(first, range(count), key=rank)
    return sorted(range(count), key=rank)[:first]
