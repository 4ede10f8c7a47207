"""Sets of instructions to answer: the one that ships, the seeds of Alpaca, and files of one's own.

A file is JSON, JSON Lines, CSV or parquet. Its rows have an `instruction` (an `input` may be
beside: Alpaca's form; or a `dataset`: AlpacaEval's), or Vicuna's `turns`, or the `instances` of
self-instruct's tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.answers.store import Entry, InstructionSet, is_unicode
from harness.errors import DataError, UsageError, did_you_mean, shortened
from harness.grid.names import file_name
from harness.readers.files import Unreadable, user_path
from harness.readers.records import Record, open_records

VICUNA, SEEDS = "vicuna", "seeds"
"""Names of sets that are no files of one's own."""
SHIPPED = Path(__file__).with_name("vicuna_bench_question.jsonl")
"""Vicuna's 80 questions: from lm-sys/FastChat, Apache License 2.0."""
SEEDS_FILE = Path("instructions/alpaca_seed_tasks.jsonl")
"""Where the seeds lie under a data root: their licence, CC BY-NC 4.0, forbids to ship them."""
SEEDS_NOTE = (
    "These are seeds of the training data, and no test: Alpaca's 52,002 rows were generated from "
    "them. They are licensed for non-commercial use alone (CC BY-NC 4.0)."
)
LONGEST_NAME = 40
"""Characters of a set's name."""
ASKED = ("instruction", "turns", "text")
"""Columns of what is asked, the first that a file has; `text` beside a `question_id` alone."""
IDS = ("id", "question_id")
BESIDE = ("input", "category", "dataset", "instances")
TAKES = (
    "a set has `instruction` (with `input`, `category`, `dataset` or `id` beside it), or "
    "`question_id` and `turns`"
)


def read_set(named: str | None, data_root: Path | None) -> InstructionSet:
    """The set of a name or a file; Vicuna's 80 questions where nothing is named.

    Args:
        named: `vicuna`, `seeds`, or the path of a file.
        data_root: the folder that the seeds lie under.

    Raises:
        ZbenchError: there is no such file, or a row of it is no instruction.
    """
    if named in (None, VICUNA):
        return _read(SHIPPED, VICUNA)
    if named == SEEDS:
        return _read(_seeds(data_root), SEEDS)
    try:
        path = user_path(str(named))
    except UsageError as fault:
        raise UsageError(f"--instructions: {fault}") from fault
    name = file_name(path.name.split(".")[0])[:LONGEST_NAME].strip("-")
    return _read(path, name or "instructions")


def _seeds(data_root: Path | None) -> Path:
    """The file of the seeds.

    Raises:
        DataError: it is not there.
    """
    if data_root is not None and (data_root / SEEDS_FILE).is_file():
        return data_root / SEEDS_FILE
    where = "" if data_root is None else f" under {data_root}"
    raise DataError(
        f"--instructions seeds: no {SEEDS_FILE}{where}; they may not be shipped (CC BY-NC 4.0): "
        "put seed_tasks.jsonl of tatsu-lab/stanford_alpaca there under this name, and name the "
        "data root by --data-root or ZBENCH_DATA_ROOT"
    )


def _read(path: Path, name: str) -> InstructionSet:
    entries: list[Entry] = []
    first: dict[str, int] = {}
    later_turns = seeds = 0
    for number, record in enumerate(_records(path)):
        entry = _entry(record, number, path, VICUNA if path == SHIPPED else name)
        known = first.setdefault(entry.id, number)
        if known != number:
            raise Unreadable(
                path,
                "content",
                f"rows {known} and {number} have the same id '{shortened(entry.id)}'",
                "give each row its own, or none",
            )
        entries.append(entry)
        later_turns += len(record.get("turns") or ()) > 1
        seeds += entry.id.startswith("seed_task_") and "instances" in record
    if not entries:
        raise Unreadable(path, "empty", "holds no instructions")
    notes = [SEEDS_NOTE] * bool(seeds)
    if later_turns:
        notes.append(f"{later_turns} of its questions have later turns: the first alone is asked.")
    return InstructionSet.of(name, entries, " ".join(notes))


def _records(path: Path) -> Iterator[Record]:
    """Yields a file's rows with the columns that mean something here.

    Raises:
        Unreadable: it has none of what is asked.
    """
    known = (*ASKED, *IDS, *BESIDE)
    with open_records(path, known) as records:
        columns: Sequence[str] = ()
        if records.types is not None:
            _check_columns(records.types, path)
            columns = [name for name in records.types if name in known]
        for number, record in enumerate(records.read(columns)):
            if number == 0:
                _check_columns(record, path)
            yield record


def _check_columns(columns: Mapping[str, Any], path: Path) -> None:
    if _asked(columns) is None:
        near = next((name for name in columns if name.lower() in ASKED), None)
        found = f"row 0 has no instruction: its columns are {', '.join(map(shortened, columns))}"
        hint = did_you_mean(near, ASKED[:1]) if near else ""
        raise Unreadable(path, "content", found, f"{TAKES}{hint}")


def _asked(columns: Mapping[str, Any]) -> str | None:
    """The column of what is asked."""
    found = next((name for name in ASKED if name in columns), None)
    return None if found == "text" and "question_id" not in columns else found


def _entry(record: Record, number: int, path: Path, dataset: str) -> Entry:
    """A row as an entry.

    Raises:
        Unreadable: it has no text to answer, or one of its values is none.
    """

    def fault(said: str) -> Unreadable:
        return Unreadable(path, "content", f"row {number} (the first is 0): {said}")

    def text(value: object, name: str) -> str:
        if not isinstance(value, str | None):
            raise fault(f"`{name}` is no text ({shortened(repr(value))})")
        if not is_unicode(value or ""):
            raise fault(f"`{name}` holds half a character ({shortened(repr(value))})")
        return value or ""

    column = _asked(record)
    if column is None:
        raise fault(f"has no `instruction` (its columns: {', '.join(map(shortened, record))})")
    asked = record[column]
    if column == "turns":
        if not isinstance(asked, list) or not asked:
            raise fault("`turns` is no list of texts, or is empty")
        asked = asked[0]
    instruction = text(asked, column)
    if not instruction.strip():
        raise fault(f"its {column} is empty: there is nothing to answer")
    own = next((record[name] for name in IDS if record.get(name) not in (None, "")), number)
    if isinstance(own, bool) or not isinstance(own, str | int):
        raise fault(f"its id is neither a text nor a whole number ({shortened(repr(own))})")
    return Entry(
        id=text(str(own), "id"),
        instruction=instruction,
        input=_input(record, fault, text),
        category=text(record.get("category"), "category"),
        dataset=text(record.get("dataset"), "dataset") or dataset,
    )


def _input(record: Record, fault: Any, text: Any) -> str:
    """The input beside an instruction: its own, or that of self-instruct's first instance."""
    instances = record.get("instances")
    if record.get("input") is None and instances is not None:
        if not isinstance(instances, list) or not all(isinstance(x, Mapping) for x in instances):
            raise fault("`instances` is no list of objects")
        return str(text(instances[0].get("input"), "input")) if instances else ""
    return str(text(record.get("input"), "input"))
