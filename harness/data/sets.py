"""Training sets: what is checked of them before they are read, and their rows.

No torch here: planning imports this file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.hub import check_reachable, read_hub, text_batches
from harness.data.pins import Content, Mismatch, content_sha256, training_pin
from harness.data.places import data_files, sha256_of_data
from harness.data.plain_rows import (
    COLUMNS,
    are_plain,
    count,
    is_plain_file,
    plain_batches,
    plain_rows,
)
from harness.data.reading import RowReader, RowReport
from harness.data.rows import Row
from harness.data.spec import DataSpec, data_file
from harness.errors import DataError, ZbenchError
from harness.readers.files import Unreadable, check_file
from harness.readers.parquet_files import read_footer
from harness.readers.records import Records, table_rows

if TYPE_CHECKING:
    import pyarrow


WHOLE_ROWS, WHOLE_BYTES = 1_000_000, 512 * 2**20
"""Of a set with more rows or text only what is drawn is kept in memory."""


@dataclass(frozen=True)
class Instructions:
    """A training set and what it is."""

    rows: tuple[Row, ...]
    identity: Mapping[str, Any]
    """source, revision and commit (None for local files), sha256 of the rows, num_rows."""
    file_sha256: str | None = None
    """Of the local files that they were read from; None for the hub's."""
    report: RowReport = field(default_factory=RowReport)
    """What was found of all rows of the set."""


@dataclass(frozen=True)
class DataFacts:
    """What is known of a training set before it is read."""

    rows: int | None
    """Its size; None of a hub data set whose size the grid does not state."""
    sha256: str | None
    """Of the local files' bytes; None where the hub is read."""
    path: Path | None
    """The local file, folder or glob."""
    report: RowReport | None = None
    """What was found of its rows; None where they were not read."""

    @property
    def text_bytes(self) -> int:
        """About, of all its rows; 0 where they were not read."""
        return 0 if self.report is None else self.report.text_bytes


def read_instructions(spec: DataSpec, *, data_root: Path | None) -> Instructions:
    """Reads a whole training set.

    Args:
        spec: what to read.
        data_root: the folder that `spec.path` is relative to.

    Raises:
        ZbenchError: missing or broken file, rows of no form, bad rows, unexpected size, or no
            network.
    """
    return _collect(spec, data_root, None)


def read_chosen(spec: DataSpec, fraction: float, seed: int, data_root: Path | None) -> Instructions:
    """A fraction of the rows, as `choose` draws it; the identity is that of the whole set.

    Raises:
        ZbenchError: as `read_instructions`, or the fraction is less than half a row.
    """
    return read_drawn(spec, lambda num_rows: chosen_rows(num_rows, fraction, seed), data_root)


def read_drawn(
    spec: DataSpec, draw: Callable[[int], Sequence[int]], data_root: Path | None
) -> Instructions:
    """The rows that `draw` chooses, given their number; the identity is that of the whole set.

    Raises:
        ZbenchError: as `read_instructions`, or what `draw` raises.
    """
    facts = inspect_data(spec, data_root)
    if (facts.rows or 0) > WHOLE_ROWS or facts.text_bytes > WHOLE_BYTES:
        assert facts.rows is not None
        data = _collect(spec, data_root, draw(facts.rows))
    else:
        data = _whole(spec, data_root, facts.sha256)
        data = replace(data, rows=tuple(data.rows[index] for index in draw(len(data.rows))))
    return replace(data, file_sha256=facts.sha256)


@functools.lru_cache(maxsize=4)  # cells of one worker share a data set
def _whole(spec: DataSpec, data_root: Path | None, _sha256: str | None) -> Instructions:
    return read_instructions(spec, data_root=data_root)


def _collect(spec: DataSpec, data_root: Path | None, wanted: Sequence[int] | None) -> Instructions:
    """Goes through all rows once, for their identity; keeps those that are wanted, or all."""
    path, reader = data_file(spec, data_root), RowReader(spec)
    if path is not None:
        place, found = str(path), _rows_of_files(spec, data_files(spec, data_root), reader)
        # Where a machine keeps a file is no part of what it is.
        name = path.name if Path(str(spec.path)).is_absolute() else spec.path
        source: dict[str, Any] = {"source": name, "revision": None, "commit": None}
    else:
        name = _hub_name(spec)
        table, commit = read_hub(name, spec.revision, spec.subset, spec.split or "train")
        place = f"{spec.source}@{spec.revision}"
        source = {"source": spec.source, "revision": spec.revision, "commit": commit}
        found = _rows_of_table(spec, table, place, reader)
    places = None if wanted is None else {row: place for place, row in enumerate(wanted)}
    kept: dict[int, Row] = {}

    def contents() -> Iterator[Any]:
        for number, row in enumerate(found):
            if places is None or number in places:
                kept[number if places is None else places[number]] = row
            yield row.content

    sha256 = content_sha256(contents())
    _check_number(spec, reader.report.rows, place)
    rows = tuple(kept[position] for position in range(len(kept)))
    identity = source | {"sha256": sha256, "num_rows": reader.report.rows}
    return Instructions(rows, identity, report=reader.report)


def _rows_of_files(spec: DataSpec, files: Sequence[Path], reader: RowReader) -> Iterator[Row]:
    if is_plain_file(spec, files):
        yield from plain_rows(plain_batches(spec, files[0]), reader.report)
    else:
        yield from reader.rows_of_files(files, _place_of_files(files))


def _rows_of_table(
    spec: DataSpec, table: pyarrow.Table, place: str, reader: RowReader
) -> Iterator[Row]:
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    batches = functools.partial(text_batches, table)
    if are_plain(spec, types) and not any(table[name].null_count for name in COLUMNS):
        yield from plain_rows(batches(COLUMNS), reader.report)
        return
    records = Records(Path(place), types, lambda columns: table_rows(batches(columns)))
    yield from reader.rows_of_records(records, place)


def _place_of_files(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"


def _check_number(spec: DataSpec, count: int, place: str) -> None:
    if spec.num_rows is not None and count != spec.num_rows:
        raise DataError(
            f"{place}: has {count} rows, the grid states num_rows {spec.num_rows}; "
            "give the right file, or correct num_rows"
        )


def inspect_data(spec: DataSpec, data_root: Path | None) -> DataFacts:
    """Checks all that training would refuse of a data set, as far as this machine can tell.

    Of the hub's nothing is read. Files are read once while their content stays the same, and not
    at all where they are the pinned one.

    Raises:
        ZbenchError: missing or broken file, rows of no form, bad rows, unexpected size.
    """
    path = data_file(spec, data_root)
    if path is None:
        check_reachable(_hub_name(spec), spec.revision)
        return DataFacts(spec.num_rows, None, None)
    files = data_files(spec, data_root)
    for file in files:
        check_file(file)
    sha256 = sha256_of_data(files)
    pin = training_pin(spec.published)
    if pin is not None and sha256 == pin.file_sha256:
        _check_number(spec, pin.rows, str(path))
        return DataFacts(pin.rows, sha256, path)
    report = _inspected(_rows_key(spec), files, sha256)
    _check_number(spec, report.rows, str(path))
    return DataFacts(report.rows, sha256, path, report)


def _rows_key(spec: DataSpec) -> DataSpec:
    """What of a spec says which rows there are in its files."""
    return DataSpec(
        path="any", columns=spec.columns, where=spec.where, on_bad_rows=spec.on_bad_rows
    )


def _inspected(spec: DataSpec, files: tuple[Path, ...], sha256: str) -> RowReport:
    """What is found of the rows of files, all of which are good."""
    if is_plain_file(spec, files):
        return _inspected_plain(spec, files[0], sha256)
    return _scanned(spec, files, sha256)[0]


@functools.lru_cache(maxsize=64)
def _inspected_plain(spec: DataSpec, file: Path, _sha256: str) -> RowReport:
    report = RowReport()
    for batch in plain_batches(spec, file):
        count(batch, report)
    return report


@functools.lru_cache(maxsize=64)
def _scanned(spec: DataSpec, files: tuple[Path, ...], _sha256: str) -> tuple[RowReport, str]:
    """What is found of the rows of files, and the hash of their content."""
    reader = RowReader(spec)
    content = content_sha256(row.content for row in _rows_of_files(spec, files, reader))
    return reader.report, content


def content_of(spec: DataSpec, data_root: Path | None) -> str | None:
    """The identity of local files' rows; None where the hub is read.

    Raises:
        ZbenchError: as `inspect_data`.
    """
    facts, pin = inspect_data(spec, data_root), training_pin(spec.published)
    if pin is not None and facts.sha256 == pin.file_sha256:
        return pin.content_sha256
    if facts.path is None:
        return None
    return _scanned(_rows_key(spec), data_files(spec, data_root), str(facts.sha256))[1]


def training_mismatch(spec: DataSpec, data_root: Path | None) -> Mismatch | None:
    """How local rows differ from the pinned version of the set that they are said to be.

    Raises:
        ZbenchError: as `inspect_data`.
    """
    pin, place = training_pin(spec.published), data_file(spec, data_root)
    if pin is None or place is None:
        return None
    rows, sha256 = inspect_data(spec, data_root).rows, content_of(spec, data_root)
    if sha256 == pin.content_sha256:
        return None
    return Mismatch(str(place), Content(rows or 0, str(sha256)), pin)


def count_rows(spec: DataSpec, data_root: Path | None) -> int | None:
    """The size of a training set: as stated, or in the footers of parquet files, or counted.

    None where nothing tells, or where a file is broken: `inspect_data` says how.
    """
    if spec.num_rows is not None:
        return spec.num_rows
    if data_file(spec, data_root) is None:
        return None
    try:
        files = data_files(spec, data_root)
        if spec.where is None and spec.on_bad_rows is None:
            with contextlib.suppress(Unreadable):
                return sum(read_footer(file).num_rows for file in files)
        return inspect_data(spec, data_root).rows
    except ZbenchError:
        return None


def _hub_name(spec: DataSpec) -> str:
    """The repository that is read where there is no file.

    Raises:
        DataError: there is none.
    """
    if spec.source is None:
        raise DataError(
            f"data.path: {spec.path} is relative; --data-root names the folder that it is in, or "
            "put it beside the grid file"
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
