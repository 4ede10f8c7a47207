"""The fast path: rows in Alpaca's three columns of texts, of which a grid says nothing more."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.forms import CONVERSATIONS, EXTRAS
from harness.data.reading import RowReader, RowReport
from harness.data.rows import Instruction
from harness.data.spec import FORMS, DataSpec
from harness.errors import DataError
from harness.readers.column_types import is_text
from harness.readers.files import check_file
from harness.readers.parquet_files import MAGIC, read_batches, read_footer

if TYPE_CHECKING:
    import pyarrow

COLUMNS = FORMS["instruction"]


def are_plain(spec: DataSpec, types: Mapping[str, pyarrow.DataType]) -> bool:
    """Whether rows have Alpaca's columns, all of texts, and nothing is said of them."""
    texts = all(name in types and is_text(types[name]) for name in COLUMNS)
    plain = (spec.columns, spec.where, spec.on_bad_rows) == (None, None, None)
    others = (*CONVERSATIONS, *EXTRAS, "prompt", "chosen", "preference", "image", "images")
    return plain and texts and not any(name in types for name in others)


def is_plain_file(spec: DataSpec, files: Sequence[Path]) -> bool:
    """Whether the rows are one parquet file of that kind, as far as its footer tells."""
    if len(files) != 1:
        return False
    check_file(files[0])
    with files[0].open("rb") as file:
        head = file.read(len(MAGIC))
    return head == MAGIC and are_plain(spec, read_footer(files[0]).types)


def plain_batches(spec: DataSpec, file: Path) -> Iterator[pyarrow.RecordBatch]:
    """Yields the columns of such a file.

    Raises:
        DataError: a text is missing, or there is no row.
    """
    empty = True
    for batch in read_batches(file, COLUMNS):
        if any(column.null_count for column in batch.columns):
            for _ in RowReader(spec).rows_of_files([file], str(file)):
                pass  # it names the rows
        empty = empty and not batch.num_rows
        yield batch
    if empty:
        raise DataError(f"{file}: has no rows; give a file with rows to train on")


def plain_rows(batches: Iterable[pyarrow.RecordBatch], report: RowReport) -> Iterator[Instruction]:
    """Yields the rows of batches; the report is whole at the end."""
    for batch in batches:
        count(batch, report)
        for texts in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Instruction(*texts)


def count(batch: pyarrow.RecordBatch, report: RowReport) -> None:
    """Adds a batch to what is known of its set."""
    import pyarrow.compute as compute

    report.form = "instruction"
    report.rows += batch.num_rows
    report.text_bytes += batch.nbytes
    sizes = [compute.binary_length(column) for column in batch.columns]
    whole = functools.reduce(compute.add, sizes)
    report.longest = max(report.longest, int(compute.max(whole).as_py() or 0))
    lengths = sizes[2]
    report.empty += int(compute.sum(compute.equal(lengths, 0)).as_py() or 0)
