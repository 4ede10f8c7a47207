"""What an item asks: its question, options and right answer, from where its data lies.

The records of tasks that lm-eval's YAML alone knows hold their texts (`text_in`); those of the
shipped benchmarks name the items alone. The rows under the data root are read as they are, without
lm-eval; what they do not say, `loaded_texts` has lm-eval's task objects tell.
No weights are loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.answers import ItemKey
from harness.errors import ZbenchError, one_line
from harness.evaluation.data_files import read_rows
from harness.evaluation.items import columns_read, question_id, text_columns, value_at
from harness.evaluation.task_data import local_files, member_files
from harness.evaluation.tasks import TaskSpec
from harness.readers.pictures import Picture

if TYPE_CHECKING:
    from harness.evaluation.benchmark import Benchmark, Member


@dataclass(frozen=True)
class ItemText:
    """What an item asks."""

    question: str
    options: tuple[str, ...] = ()
    """Empty where there is nothing to choose from."""
    gold: str = ""
    """The right answer, where it is not among the records; `options` and the record name it."""


Texts = Mapping[tuple[str, str], ItemText]
"""By document number in its lm-eval task, as `task/number`, and question id."""


def text_of(texts: Texts, item: ItemKey) -> ItemText | None:
    """The text of an item of the records; None where it is not there, or another one is."""
    task, doc_id, question = item
    return texts.get((f"{task}/{doc_id}", question))


Row = Mapping[str, Any]
Key = tuple[str, str]
"""`task/number` and question id."""


def stored_rows(task: TaskSpec, data_root: Path | None) -> Iterator[tuple[Key, Row]]:
    """Yields the rows of a benchmark's items under the data root, all of their columns; none where
    there are none.

    Raises:
        ZbenchError: they cannot be read.
    """
    benchmark = task.benchmark
    if benchmark.members:
        for member, key, row in _member_rows(task, data_root):
            yield (f"{member.name}/{key[0]}", key[1]), row
        return
    path = local_files(task, data_root).get(benchmark.eval_split)
    yield from _keyed(benchmark, [] if path is None else read_rows(path).to_pylist())


def stored_texts(task: TaskSpec, data_root: Path | None) -> dict[tuple[str, str], ItemText]:
    """Texts of a benchmark's items by its rows under the data root; empty where there are none.

    Imports neither lm-eval nor data sets, so that a report can show them.
    """
    try:
        benchmark = task.benchmark
        if benchmark.members:
            return dict(_member_texts(task, data_root))
        path = local_files(task, data_root).get(benchmark.eval_split)
        columns = [] if path is None else _columns(benchmark, path)
        rows = [] if path is None else read_rows(path, columns).to_pylist()
        return dict(_row_texts(benchmark, rows))
    except (ZbenchError, OSError, KeyError, TypeError, ValueError):
        return {}  # the run itself tells what is wrong with them


def _member_rows(
    task: TaskSpec, data_root: Path | None
) -> Iterator[tuple[Member, tuple[int, str], Row]]:
    files = member_files(task, data_root)
    for member in task.benchmark.members:
        path = files.get(member.name, {}).get(member.eval_split)
        rows = [] if path is None else read_rows(path).to_pylist()
        for number, row in enumerate(rows):
            yield member, (number, question_id(task.benchmark, row)), row


def _member_texts(
    task: TaskSpec, data_root: Path | None
) -> Iterator[tuple[tuple[str, str], ItemText]]:
    """Rows of the tasks that lm-eval's YAML alone knows: what their templates read, as it is."""
    for member, (number, question), row in _member_rows(task, data_root):
        read = [name for name in row if name in member.columns] or list(row)
        texts = [f"{name}: {row[name]}" if len(read) > 1 else str(row[name]) for name in read]
        yield (f"{member.name}/{number}", question), ItemText("\n".join(texts))


def _keyed(benchmark: Benchmark, rows: Iterable[Row]) -> Iterator[tuple[Key, Row]]:
    """Yields rows by their number in their lm-eval task, and question id."""
    seen: Counter[str] = Counter()
    for row in rows:
        task = benchmark.name
        if benchmark.subject_column is not None:
            task += f"_{row[benchmark.subject_column]}"
        own = question_id(benchmark, row, _picture_sha256(benchmark, row))
        yield (f"{task}/{seen[task]}", own), row
        seen[task] += 1


def _columns(benchmark: Benchmark, path: Path) -> list[str]:
    """What is read of a file: its pictures only where items have no other name."""
    columns = columns_read(benchmark, path)
    has_id = benchmark.id_column in columns
    return [one for one in columns if not (has_id and one == benchmark.picture_column)]


def _picture_sha256(benchmark: Benchmark, row: Row) -> str | None:
    """The identity of a row's picture, which is in the name of an item without an id."""
    value = row.get(benchmark.picture_column) if benchmark.picture_column else None
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return Picture.of(data).sha256 if isinstance(data, bytes) else None


def _row_texts(
    benchmark: Benchmark, rows: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[tuple[str, str], ItemText]]:
    told = (benchmark.subject_column, *benchmark.item_columns)
    texts = [name for name in text_columns(benchmark) if name not in told]
    for key, row in _keyed(benchmark, rows):
        question = "\n".join(str(row[name]) for name in texts if row[name])
        options = (benchmark.form and value_at(row, benchmark.form.options)) or ()
        yield key, ItemText(question, tuple(map(str, options)))


def loaded_texts(task: TaskSpec, data_root: Path | None) -> dict[tuple[str, str], ItemText]:
    """Texts of a benchmark's items as lm-eval asks them: loads lm-eval, torch and its data.

    Raises:
        DataError: the data cannot be read.
        EvaluationError: lm-eval cannot make its prompts from them.
    """
    from harness.evaluation.item_records import asked
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.scores import item_keys

    loaded, found = load_benchmark(task, data_root), {}
    for name, member in loaded.tasks.items():
        for number, doc in enumerate(member.eval_docs):
            key = item_keys(loaded, name, {"doc": doc, "doc_id": number})
            question, options, gold = asked(member, doc)
            text = ItemText(question, tuple(options), gold)
            found[f"{name}/{number}", key["question_id"]] = text
    return found


def text_in(record: Mapping[str, Any]) -> ItemText | None:
    """The text that a record of an item itself holds: of tasks that lm-eval's YAML alone knows."""
    question, options = record.get("question"), record.get("options")
    if not isinstance(question, str):
        return None
    return ItemText(question, tuple(options or ()), record.get("target") or "")


def texts_of(
    task: TaskSpec, data_root: Path | None, wanted: Iterable[ItemKey]
) -> tuple[Texts, str | None]:
    """Texts of a benchmark's items, and why those that are wanted are not there, if so."""
    wanted = list(wanted)
    texts = stored_texts(task, data_root)
    if wanted and all(text_of(texts, item) for item in wanted):
        return texts, None
    try:
        texts = loaded_texts(task, data_root) | texts
    except Exception as fault:  # of data sets, the hub's client, lm-eval, templates: of any kind
        return texts, one_line(fault)
    if not all(text_of(texts, item) for item in wanted):
        where = "on the hub" if data_root is None else f"under {data_root}"
        return texts, f"the items {where} are others"
    return texts, None
