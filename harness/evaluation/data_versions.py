"""Which version of a data set was read: the identity of its content, and the pinned ones.

A content identity is taken over the rows, in order, whatever file or hub they came from; so a hub's
copy and a local parquet file of the same version have the same. `data/pins.yaml` pins those of the
data sets that zbench's numbers are about. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.data.pins import Content, Mismatch, Pin, content_sha256, pins
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.data_files import file_content, read_rows
from harness.evaluation.items import check_split
from harness.evaluation.task_data import local_files, nominal_file
from harness.evaluation.tasks import TaskSpec
from harness.readers.column_types import is_plain
from harness.readers.formats import format_of
from harness.readers.parquet_files import read_footer
from harness.records.files import known_sha256_of_file

Row = Mapping[str, Any]


def split_content(benchmark: Benchmark, columns: Sequence[str], rows: Iterable[Row]) -> Content:
    """The identity of one split's rows, which come in the data set's order; see `columns_of`.

    Rows of several subjects count subject by subject: the hub gives each by itself.
    """
    ordered, subject = list(rows), benchmark.subject_column
    if subject is not None:
        ordered.sort(key=lambda row: str(row[subject]))
    if benchmark.name == "hellaswag":  # whose columns are more than a model ever sees
        return Content(len(ordered), content_sha256(map(_hellaswag, ordered)))
    values = ([row[name] for name in columns] + _picture(benchmark, row) for row in ordered)
    return Content(len(ordered), content_sha256(values))


def _picture(benchmark: Benchmark, row: Row) -> list[str | None]:
    """The SHA-256 of a row's picture, where it is none of the columns that all rows have."""
    if benchmark.picture_column not in benchmark.optional_columns:
        return []
    held = row.get(benchmark.picture_column)
    data = held.get("bytes") if isinstance(held, Mapping) else held
    return [None if data is None else hashlib.sha256(data).hexdigest()]


def content_columns(benchmark: Benchmark, file: str, available: Sequence[str]) -> list[str]:
    """The columns that make a split's content, and that of its pictures where it has them."""
    columns, picture = columns_of(benchmark, file, available), benchmark.picture_column
    missing = picture in benchmark.optional_columns and picture in available
    return [*columns, *([picture] if picture is not None and missing else [])]


def columns_of(benchmark: Benchmark, file: str, available: Sequence[str]) -> tuple[str, ...]:
    """The columns that make a split's content.

    These are the pinned ones where it has them, so that all benchmarks that read a file agree on
    what it holds; else those that the task reads.
    """
    pin = _pin(benchmark, file)
    return pin.columns if pin and set(pin.columns) <= set(available) else benchmark.columns


def local_contents(task: TaskSpec, data_root: Path | None) -> dict[str, tuple[str, Content]]:
    """(File under the data root, content) of each split that a task reads from local files; of a
    file elsewhere, what it would be called there.

    Raises:
        DataError: a file is missing, cannot be read, or lacks a column.
    """
    found = {}
    for split, path in local_files(task, data_root).items():
        if task.benchmark.members:  # whose rows are compared whole: no pin says which columns count
            found[split] = str(path), file_content(path)
            continue
        file = nominal_file(task, split, path, data_root)
        found[split] = file, _file_content(task.benchmark, file, path)
    return found


def task_content_sha256(contents: Mapping[str, tuple[str, Content]]) -> str:
    """The content identity of all splits that a task reads: of one split its own."""
    sums = [content.sha256 for _, (_, content) in sorted(contents.items())]
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def pinned_content(benchmark: Benchmark, shots: int) -> str | None:
    """The content identity of the pinned version of what a benchmark reads; None without."""
    if benchmark.members:
        return None
    found = {}
    for split, file in benchmark.split_files(shots).items():
        pin = _pin(benchmark, file)
        if pin is None:
            return None
        found[split] = file, Content(pin.rows, pin.content_sha256)
    return task_content_sha256(found)


def mismatches(
    benchmark: Benchmark, contents: Mapping[str, tuple[str, Content]], place: str
) -> list[Mismatch]:
    """The splits that are not the pinned ones; a split without a pin is none of them.

    `place` is what to call their place in a message: a data root, or `hub: repository`.
    """
    if benchmark.members:
        return []
    return [
        Mismatch(place if place.startswith("hub:") else str(Path(place) / file), content, pin)
        for file, content in contents.values()
        if (pin := _pin(benchmark, file)) and content.sha256 != pin.content_sha256
    ]


def local_mismatches(task: TaskSpec, data_root: Path | None) -> list[Mismatch]:
    """The local files of a task that are not the pinned version.

    Raises:
        DataError: a file is missing, is no parquet, or lacks a column.
    """
    return mismatches(task.benchmark, local_contents(task, data_root), str(data_root or ""))


def _pin(benchmark: Benchmark, file: str) -> Pin | None:
    # What is on no hub, as the embedded world, is nobody's data set: it has the same file names.
    return pins().get(file) if benchmark.hub is not None else None


def _file_content(benchmark: Benchmark, file: str, path: Path) -> Content:
    pin = _pin(benchmark, file)
    if pin is not None and known_sha256_of_file(path) == pin.file_sha256:
        return Content(pin.rows, pin.content_sha256)
    stat = path.stat()
    return _read_content(benchmark.name, file, path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_content(name: str, file: str, path: Path, _size: int, _changed: int) -> Content:
    benchmark = BENCHMARKS[name]
    check_split(benchmark, file, path, num_shots=0)  # what cannot be asked has no content
    if format_of(path) == "parquet":
        types = read_footer(path).types
        available = [
            column
            for column in types
            if is_plain(types[column]) or column == benchmark.picture_column
        ]
    else:
        available = read_rows(path).column_names
    columns = columns_of(benchmark, file, available)
    rows = read_rows(path, content_columns(benchmark, file, available)).to_pylist()
    return split_content(benchmark, columns, rows)


_MARKER = re.compile(r"\[.*?\]")


def _hellaswag(row: Row) -> list[Any]:
    """A row as lm-eval shows it to a model, blanks squeezed.

    Its prompts drop the markers of WikiHow's articles, and so do some copies of the data set.
    """
    query = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return [_shown(query), [_shown(ending) for ending in row["endings"]], str(row["label"])]


def _shown(text: str) -> str:
    return " ".join(_MARKER.sub("", text.replace(" [title]", ". ")).split())
