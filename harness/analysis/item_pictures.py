"""The pictures of a few items, from the rows under the data root, without lm-eval and torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.answers import ItemKey
from harness.errors import ZbenchError
from harness.evaluation.data_files import read_rows
from harness.evaluation.task_data import local_files
from harness.evaluation.tasks import TaskSpec
from harness.readers.formats import format_of
from harness.readers.parquet_files import read_batches, read_footer
from harness.readers.pictures import Picture

if TYPE_CHECKING:
    from harness.evaluation.benchmark import Benchmark

Pictures = Mapping[ItemKey, Picture]
"""By item; without those that have none, or whose data are not here."""
PicturesOf = Callable[[str, str, Collection[ItemKey]], Pictures]
"""Takes a cell's id, a benchmark and the items that are wanted."""


def no_pictures(_cell: str, _benchmark: str, _wanted: Collection[ItemKey]) -> Pictures:
    """No picture of any item."""
    return {}


def stored_pictures(
    task: TaskSpec, data_root: Path | None, wanted: Collection[ItemKey]
) -> dict[ItemKey, Picture]:
    """The pictures of the items that are wanted, which are told by their number in their lm-eval
    task; of other rows nothing is kept. Empty where the rows are not here, or cannot be read."""
    benchmark = task.benchmark
    if benchmark.picture_column is None or benchmark.members:
        return {}
    places = {(item[0], item[1]): item for item in wanted}
    found = {}
    try:
        path = local_files(task, data_root).get(benchmark.eval_split)
        for place, value in _numbered(benchmark, path) if path is not None else ():
            data = value.get("bytes") if isinstance(value, Mapping) else value
            if place in places and isinstance(data, bytes):
                found[places[place]] = Picture.of(data)
    except (ZbenchError, OSError, KeyError, TypeError, ValueError):
        return {}  # the run itself tells what is wrong with them
    return found


def _numbered(benchmark: Benchmark, path: Path) -> Iterator[tuple[tuple[str, int], Any]]:
    """Yields each row's lm-eval task and number in it, and what it holds of its picture."""
    column, subject = str(benchmark.picture_column), benchmark.subject_column
    seen: Counter[str] = Counter()
    for row in _rows(path, [column, *([subject] if subject else [])], column):
        task = benchmark.name if subject is None else f"{benchmark.name}_{row[subject]}"
        yield (task, seen[task]), row.get(column)
        seen[task] += 1


def _rows(path: Path, columns: list[str], pictures: str) -> Iterator[Mapping[str, Any]]:
    if format_of(path) != "parquet":
        yield from read_rows(path).to_pylist()
    elif pictures in read_footer(path).types:
        for batch in read_batches(path, columns, pictures=[pictures]):
            yield from batch.to_pylist()
