"""Estimates what scoring a task takes that was never counted: from its local rows, as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.demo.world import DATA
from harness.errors import ZbenchError
from harness.evaluation.benchmark import Member
from harness.evaluation.data_files import read_rows
from harness.evaluation.task_data import local_files, member_files
from harness.evaluation.tasks import TaskSpec
from harness.grid.column_sets import Where

CHARACTERS_PER_TOKEN = 4.0
SAMPLE = 200
"""Rows whose texts are measured."""
CHOICES = 4
"""Answers that are scored of an item, where its row has no list that tells."""
ANSWER_TOKENS = 4
"""Of an answer that is scored."""


@dataclass(frozen=True)
class OwnSize:
    """What a task asks of a model."""

    items: int
    tokens: int
    """Of the prompts, each computed once, and of the answers that are scored behind them."""
    scored: int
    """Those that need logits."""
    pairs: int
    """Query-key pairs of attention."""
    new_tokens: int
    """Generated one after the other, at most."""


def own_size(task: TaskSpec, data_root: Path | None) -> OwnSize | None:
    """The size of a task of lm-eval by its local files; None where they are not all here."""
    try:
        files = member_files(task, data_root)
        parts = [
            _size(member, task, files[member.name][member.eval_split])
            for member in task.benchmark.members
        ]
    except (ZbenchError, KeyError, OSError):  # the run itself tells what is wrong with them
        return None
    if not parts:
        return None
    names = ("items", "tokens", "scored", "pairs", "new_tokens")
    return OwnSize(**{name: sum(getattr(part, name) for part in parts) for name in names})


def some_items(task: TaskSpec, where: Where, data_root: Path | None) -> int | None:
    """How many of a task's items have given values in columns of its data, see `grid.column_sets`;
    None where its rows are not here, or their records hold no such columns.
    """
    known, names = task.benchmark, [name for name, _ in where]
    if task.limit is not None or not {*names} <= {*known.item_columns}:
        return None
    try:
        path = local_files(task, DATA if known.world else data_root)[known.eval_split]
        rows = read_rows(path, names).to_pylist()
    except (ZbenchError, KeyError, OSError):
        return None
    return sum(all(row[name] in values for name, values in where) for row in rows)


def _size(member: Member, task: TaskSpec, path: Path) -> OwnSize:
    table = read_rows(path)
    items = table.num_rows if task.limit is None else min(task.limit, table.num_rows)
    rows = table.slice(0, SAMPLE).to_pylist()
    read = [{k: v for k, v in row.items() if k in (member.columns or row)} for row in rows]
    characters = sum(len(text) for row in read for text in _texts(row)) / max(1, len(rows))
    prompt = characters / CHARACTERS_PER_TOKEN * (1 + member.num_shots(task.shots))
    lists = [len(value) for row in read for value in row.values() if isinstance(value, list)]
    scored, new = float(ANSWER_TOKENS), 0.0
    if member.output_type == "multiple_choice":
        scored *= sum(lists) / len(lists) if lists else CHOICES
    elif member.output_type == "loglikelihood_rolling":
        scored = prompt
    elif member.output_type == "generate_until" and task.decoding is not None:
        scored, new = 0.0, float(task.decoding.max_new_tokens)
    whole = prompt + (0.0 if member.output_type == "loglikelihood_rolling" else scored)
    return OwnSize(
        items=items,
        tokens=round(items * whole),
        scored=round(items * scored),
        pairs=round(items * (whole + new) ** 2),
        new_tokens=round(items * new),
    )


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts within a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
