"""Two results side by side: what differs that can move a score, and the scores with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from harness.errors import StorageError, TrackingError, UsageError, did_you_mean
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.grid.folders import items_path, stored_label
from harness.grid.selection import UnknownCell, find_folder
from harness.records.results import CellResult, TaskScore, read_result

if TYPE_CHECKING:
    import pandas as pd

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
    """Returns the file of the per-item records of a benchmark and request key, if there is one."""


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one benchmark in both; values are 0..1."""

    benchmark: str
    metric: str
    first: TaskScore
    second: TaskScore
    interval: tuple[float, float] | None = None
    """Of second minus first, 95%, paired by item."""
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
    """What `zbench compare` tells."""

    first: Side
    second: Side
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    """What neither recorded."""
    rows: tuple[ScoreRow, ...]
    only_first: tuple[TaskScore, ...]
    only_second: tuple[TaskScore, ...]


def compare(first: Side, second: Side) -> Comparison:
    """Returns what differs between two results, and their scores side by side."""
    pairs, left, right = pair_requests(requests_of(first.result), requests_of(second.result))
    found = cell_differences(first.result, second.result)
    found += merge([each for pair in pairs for each in request_differences(pair)])
    rows: list[ScoreRow] = []
    lone: tuple[list[TaskScore], list[TaskScore]] = ([], [])
    for pair in pairs:
        metrics = dict.fromkeys(score.metric for request in pair for score in request.scores)
        for metric in metrics:
            one, other = (request.score(metric) for request in pair)
            if one is not None and other is not None:
                rows.append(_score_row(one, other, _items(first, pair[0]), _items(second, pair[1])))
            elif one is not None or other is not None:
                lone[one is None].append(one or other)  # type: ignore[arg-type]  # one is there
    for requests, scores in zip((left, right), lone, strict=True):
        scores += [s for request in requests for s in request.scores if s.task == s.benchmark]
    return Comparison(
        first=first,
        second=second,
        differences=tuple(found),
        unknown=tuple(unknown_of(pairs)),
        rows=tuple(rows),
        only_first=tuple(lone[0]),
        only_second=tuple(lone[1]),
    )


def _items(side: Side, request: Request) -> pd.DataFrame | None:
    import pandas as pd

    path = side.items(request.benchmark, request.key)
    if path is None or not path.is_file():
        return None
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as fault:
        raise StorageError(f"{path}: cannot be read ({fault}); copy it again") from fault


def _score_row(
    one: TaskScore, other: TaskScore, first: pd.DataFrame | None, second: pd.DataFrame | None
) -> ScoreRow:
    row = ScoreRow(one.benchmark, one.metric, one, other)
    if first is None or second is None:
        return _without(row, "no records of the items")
    column = "acc" if one.metric == MACRO_METRIC else one.metric
    a, b = _by_item(first, column), _by_item(second, column)
    if a is None or b is None or not (_gives(a, one) and _gives(b, other)):
        return _without(row, "the items' records do not give the score")
    if not a.index.equals(b.index):
        return _without(row, "other items")
    return _paired(row, a, b)


def _without(row: ScoreRow, reason: str) -> ScoreRow:
    return ScoreRow(row.benchmark, row.metric, row.first, row.second, unpaired=reason)


def _by_item(items: pd.DataFrame, column: str) -> pd.Series | None:
    index = ["task", "doc_id", "question_id"]
    if any(name not in items for name in (*index, column)):
        return None
    series = items.set_index(index)[column].astype(float).sort_index()
    return series if series.index.is_unique else None


def _gives(series: pd.Series, score: TaskScore) -> bool:
    by_task = series.groupby(level="task").mean()
    mean = by_task.mean() if score.metric == MACRO_METRIC else series.mean()
    return abs(float(mean) - score.value) < MAX_ERROR


def _paired(row: ScoreRow, first: pd.Series, second: pd.Series) -> ScoreRow:
    import numpy as np

    from harness.analysis.stats import Sample, combine, mcnemar_exact

    groups = [second - first]
    if row.metric == MACRO_METRIC:
        groups = [part for _, part in groups[0].groupby(level="task")]
    samples = [
        Sample(
            scores=np.array([part.mean()]),
            items=part.to_numpy()[None, :],
            num_items=len(part),
            weight=1 / len(groups),
        )
        for part in groups
    ]
    estimate = combine(samples)
    p_value = estimate.p_value
    values = np.concatenate([first.to_numpy(), second.to_numpy()])
    if len(groups) == 1 and np.isin(values, (0.0, 1.0)).all():
        p_value = mcnemar_exact(second.to_numpy(), first.to_numpy())
    return ScoreRow(
        row.benchmark,
        row.metric,
        row.first,
        row.second,
        interval=estimate.interval,
        p_value=p_value,
        num_items=estimate.num_items,
        unpaired=None if estimate.interval else "too few items",
    )


def find_side(name: str, *, runs_dir: Path, tracking_uri: str | None) -> Side:
    """Returns the result that a name means.

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
    return _side_of(folder, name)


def _side_of(folder: Path, name: str) -> Side:
    result = read_result(folder)
    if result is None:
        raise UsageError(f"{name}: has no result yet in {folder}; run its grid first")
    return Side(
        label=stored_label(folder) or result.cell_id,
        place=str(folder),
        result=result,
        items=lambda benchmark, key: items_path(folder, benchmark, key),
    )


def _tracked_side(
    name: str, labels: Sequence[str], runs_dir: Path, tracking_uri: str | None
) -> Side:
    from harness.tracking.lookup import RunLookup
    from harness.tracking.study import study_uri

    lookup = RunLookup(study_uri(runs_dir, tracking_uri))
    runs: list[str] = []
    problem = ""
    try:
        if lookup.exists():
            run = lookup.find(name)
            if run is not None:
                return Side(
                    label=run.label,
                    place=f"MLflow run {run.run_id}",
                    result=run.result,
                    items=lambda benchmark, key: lookup.items_file(run, benchmark, key),
                )
            runs = lookup.names()
    except TrackingError as fault:
        if tracking_uri is not None:
            raise
        problem = f" ({fault})"
    hint = did_you_mean(name, dict.fromkeys([*labels, *runs]))
    raise UsageError(f"{name}: no such cell in {runs_dir} and no such MLflow run{problem}{hint}")
