"""Two results side by side: what differs that can move a score, and the scores with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.differences import (
    Difference,
    Request,
    cell_differences,
    merge,
    pair_requests,
    request_differences,
    requests_of,
    unknown_of,
)
from harness.errors import (
    StorageError,
    TrackingError,
    UsageError,
    did_you_mean,
    one_line,
    shortened,
)
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.grid.cell_files import SCORED_AGAIN, read_table
from harness.grid.folders import items_path, stored_label
from harness.grid.selection import UnknownCell, find_folder
from harness.records.results import CellResult, TaskScore, read_result

if TYPE_CHECKING:
    import numpy as np

Answers = dict[tuple[str, int, str], float]
"""Scores of a benchmark's items, by task, document and question."""

MAX_ERROR = 1e-6
"""Between a score and the mean of its items' records, which else are another evaluation's."""


@dataclass(frozen=True)
class Side:
    """One of two results, and where it lies."""

    label: str
    place: str
    """Its folder, or its MLflow run."""
    result: CellResult
    items: Callable[[str, str], Path | None]
    """File of the per-item records of a benchmark and evaluation, if there is one."""


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one benchmark in both; values are 0..1."""

    benchmark: str
    metric: str
    first: TaskScore
    second: TaskScore
    interval: tuple[float, float] | None = None
    """95% interval of second minus first, paired by item."""
    p_value: float | None = None
    num_items: int = 0
    """Items of the pairs."""
    unpaired: str | None = None
    """Why there is no interval."""

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second.value - self.first.value


@dataclass(frozen=True)
class Comparison:
    """What `zbench compare` prints."""

    first: Side
    second: Side
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    """What neither recorded."""
    rows: tuple[ScoreRow, ...]
    only_first: tuple[TaskScore, ...]
    only_second: tuple[TaskScore, ...]


def compare(first: Side, second: Side) -> Comparison:
    """What differs between two results, and their scores side by side."""
    pairs, left, right = pair_requests(requests_of(first.result), requests_of(second.result))
    found = cell_differences(first.result, second.result)
    found += merge([each for pair in pairs for each in request_differences(pair)])
    rows: list[ScoreRow] = []
    only_first: list[TaskScore] = []
    only_second: list[TaskScore] = []
    for pair in pairs:
        for metric in dict.fromkeys(score.metric for request in pair for score in request.scores):
            one, other = (request.score(metric) for request in pair)
            if one is not None and other is not None:
                answers = _answers(first, pair[0], metric), _answers(second, pair[1], metric)
                rows.append(_score_row(one, other, *answers))
            elif one is not None:
                only_first.append(one)
            elif other is not None:
                only_second.append(other)
    for requests, scores in ((left, only_first), (right, only_second)):
        scores += [s for request in requests for s in request.scores if s.task == s.benchmark]
    facts = tuple(found), tuple(unknown_of(pairs)), tuple(rows)
    return Comparison(first, second, *facts, tuple(only_first), tuple(only_second))


def _answers(side: Side, request: Request, metric: str) -> Answers | None:
    """Score of each item, sorted by item; None without records, empty if they lack the metric."""
    path = side.items(request.benchmark, request.evaluation)
    if path is None or not path.is_file():
        return None
    names = ["task", "doc_id", "question_id", "acc" if metric == MACRO_METRIC else metric]
    try:
        name = str(items_path(Path(), request.benchmark, request.evaluation))
        table = read_table(path, side.result.files_sha256.get(name))
        if any(name not in table.column_names for name in names):
            return {}
        *keys, values = (table[name].to_pylist() for name in names)
        answers = dict(sorted(zip(zip(*keys, strict=True), map(float, values), strict=True)))
    except (TypeError, ValueError) as fault:  # of values that no evaluation writes
        raise StorageError(f"{path}: damaged ({one_line(fault)}); {SCORED_AGAIN}") from fault
    return answers if len(answers) == len(values) else {}


def _groups(answers: Answers, metric: str) -> list[np.ndarray]:
    """Answers of each subject where the metric is a mean over subjects, else of all items."""
    import numpy as np

    is_macro = metric == MACRO_METRIC
    groups = groupby(answers, key=lambda item: item[0] if is_macro else "")
    return [np.array([answers[item] for item in items]) for _, items in groups]


def _agree(answers: Answers, score: TaskScore) -> bool:
    """Whether the mean of the items' answers is the score."""
    means = [group.mean() for group in _groups(answers, score.metric)]
    return bool(means) and abs(float(sum(means) / len(means)) - score.value) < MAX_ERROR


def _score_row(
    one: TaskScore, other: TaskScore, first: Answers | None, second: Answers | None
) -> ScoreRow:
    import numpy as np

    from harness.analysis.stats import Sample, combine, mcnemar_exact

    row = ScoreRow(one.benchmark, one.metric, one, other)
    if first is None or second is None:
        return replace(row, unpaired="no records of the items")
    if not (_agree(first, one) and _agree(second, other)):
        return replace(row, unpaired="the items' records do not give the score")
    if list(first) != list(second):
        return replace(row, unpaired="other items")
    gained = {item: second[item] - answer for item, answer in first.items()}
    tables = [group[None, :] for group in _groups(gained, row.metric)]
    estimate = combine(
        [Sample(items.mean(axis=1), items, None, items.size, 1 / len(tables)) for items in tables]
    )
    p_value = estimate.p_value
    answers = [np.array(list(found.values())) for found in (second, first)]
    if len(tables) == 1 and np.isin(answers, (0.0, 1.0)).all():
        p_value = mcnemar_exact(*answers)
    return replace(
        row,
        interval=estimate.interval,
        p_value=p_value,
        num_items=estimate.num_items,
        unpaired=None if estimate.interval else "too few items",
    )


def find_side(name: str, *, runs_dir: Path, tracking_uri: str | None) -> Side:
    """The result that a name means.

    Args:
        name: a cell's, by the rule of `grid.selection`; or an MLflow run's id or name.
        runs_dir: where cells are kept.
        tracking_uri: where MLflow runs are looked for; None for the environment's or the default.

    Raises:
        UsageError: there is no such cell or run, or several, or it has no result.
        StorageError: its result cannot be read.
        TrackingError: MLflow, where it was named, does not answer.
    """
    try:
        folder = find_folder(name, runs_dir)
    except UnknownCell as unknown:
        return _tracked_side(name, unknown.labels, runs_dir, tracking_uri)
    result = read_result(folder)
    if result is None:
        raise UsageError(f"{name}: has no result yet in {folder}; run its grid first")
    label = stored_label(folder) or result.cell_id
    return Side(label, str(folder), result, partial(items_path, folder))


def _tracked_side(
    name: str, labels: Sequence[str], runs_dir: Path, tracking_uri: str | None
) -> Side:
    from harness.tracking.address import resolve_uri
    from harness.tracking.lookup import RunLookup

    lookup = RunLookup(resolve_uri(None, runs_dir, tracking_uri), runs_dir)
    runs: list[str] = []
    problem = ""
    try:
        if lookup.exists():
            run = lookup.find(name)
            if run is not None:
                place = f"MLflow run {run.run_id}"
                return Side(run.label, place, run.result, partial(lookup.items_file, run))
            runs = lookup.names()
    except TrackingError as fault:
        if tracking_uri is not None:
            raise
        problem = f" ({fault})"
    hint = did_you_mean(name, dict.fromkeys([*labels, *runs]))
    said = f"no such cell in {runs_dir} and no such MLflow run{problem}{hint}"
    raise UsageError(f"{shortened(name)}: {said}")
