"""A side's answers to a benchmark's items: scores by item, and which side gets an item right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import StorageError, one_line
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.grid.cell_files import SCORED_AGAIN, read_table
from harness.grid.folders import items_path
from harness.records.scores import TaskScore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from harness.analysis.differences import Request
    from harness.analysis.sides import Side

ITEM_KEY = ("task", "doc_id", "question_id")
"""Columns of the records that name an item."""
ItemKey = tuple[str, int, str]
"""Task, document and question."""
Answers = dict[ItemKey, float]
"""Scores of a benchmark's items."""

MAX_ERROR = 1e-6
"""Between a score and the mean of its items' records, which else are another evaluation's."""

LOGLIKELIHOOD = "loglikelihood"
"""What is kept of an item whose metric is no mean over items, such as a perplexity; in nats."""

Kind = Literal["both", "first", "second", "neither", "equal"]
"""Who gets an item right; or, of a metric that is no right or wrong, who is better, or none."""


@dataclass(frozen=True)
class ItemOutcome:
    """How both sides do on one item, as means over the pairs (seeds)."""

    item: ItemKey
    first: float
    second: float
    kind: Kind


@dataclass(frozen=True)
class Outcomes:
    """How both sides do on the items of a benchmark by one metric."""

    items: tuple[ItemOutcome, ...]
    right_or_wrong: bool
    """Whether an item is right or wrong; else `first` and `second` are who is better."""

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of items by kind."""
        found = Counter(one.kind for one in self.items)
        kinds: tuple[Kind, ...] = ("first", "second", "equal")
        if self.right_or_wrong:
            kinds = ("both", "first", "second", "neither")
        return {kind: found[kind] for kind in kinds}


def read_items(side: Side, request: Request) -> pyarrow.Table | None:
    """Records of an evaluation's items; None where there are none.

    Raises:
        StorageError: they are damaged.
    """
    path = side.items(request.benchmark, request.evaluation)
    if path is None or not path.is_file():
        return None
    name = str(items_path(Path(), request.benchmark, request.evaluation))
    return read_table(path, side.result.files_sha256.get(name))


def item_keys(table: pyarrow.Table) -> list[ItemKey]:
    """What names the items of a table of records, in its order."""
    return list(zip(*(table[name].to_pylist() for name in ITEM_KEY), strict=True))


def answers_of(side: Side, request: Request, metric: str) -> Answers | None:
    """Score of each item that has one, sorted by item; None without records, empty if they lack the
    metric.

    Raises:
        StorageError: the records are damaged.
    """
    table = read_items(side, request)
    if table is None:
        return None
    column = "acc" if metric == MACRO_METRIC else metric
    if any(name not in table.column_names for name in (*ITEM_KEY, column)):
        return {}
    try:
        rows = zip(item_keys(table), table[column].to_pylist(), strict=True)
        found = [(key, float(value)) for key, value in rows if value is not None]
        answers = dict(sorted(found))
    except (TypeError, ValueError) as fault:  # of values that no evaluation writes
        path = side.items(request.benchmark, request.evaluation)
        raise StorageError(f"{path}: damaged ({one_line(fault)}); {SCORED_AGAIN}") from fault
    return answers if len(answers) == len(found) else {}


def by_subject(answers: Answers, metric: str) -> list[np.ndarray]:
    """Answers of each subject where the metric is a mean over subjects, else of all items."""
    import numpy as np

    is_macro = metric == MACRO_METRIC
    groups = groupby(answers, key=lambda item: item[0] if is_macro else "")
    return [np.array([answers[item] for item in items]) for _, items in groups]


def agree(answers: Answers, score: TaskScore) -> bool:
    """Whether the mean of the items' answers is the score."""
    means = [group.mean() for group in by_subject(answers, score.metric)]
    return bool(means) and abs(float(sum(means) / len(means)) - score.value) < MAX_ERROR


def outcomes_of(
    items: list[ItemKey], first: np.ndarray, second: np.ndarray, *, higher_is_better: bool
) -> Outcomes:
    """Who gets which item right, of answers (pairs, items) of both sides.

    Right, of several seeds, is what more than half of them get right. Of a metric that takes other
    values than 0 and 1 it is told who is better on the mean over the seeds.
    """
    import numpy as np

    binary = all(bool(np.isin(side, (0.0, 1.0)).all()) for side in (first, second))
    ours, theirs = first.mean(axis=0), second.mean(axis=0)
    sign = 1 if higher_is_better else -1
    found = []
    for item, one, other in zip(items, ours.tolist(), theirs.tolist(), strict=True):
        kind: Kind
        if binary:
            right = sign * (one - 0.5) > 0, sign * (other - 0.5) > 0
            kind = {(True, True): "both", (True, False): "first",
                    (False, True): "second", (False, False): "neither"}[right]  # type: ignore[assignment]  # fmt: skip
        else:
            kind = "equal" if one == other else "first" if sign * (one - other) > 0 else "second"
        found.append(ItemOutcome(item, one, other, kind))
    return Outcomes(tuple(found), binary)
