"""Two sides, each a result or several: what differs that can move a score, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.answers import (
    LOGLIKELIHOOD,
    Answers,
    Outcomes,
    agree,
    answers_of,
    by_subject,
    outcomes_of,
)
from harness.analysis.differences import (
    Difference,
    Request,
    cell_differences,
    merge,
    merge_pairs,
    pair_requests,
    request_differences,
    requests_of,
    unknown_of,
)
from harness.analysis.sides import PAIRED_BY, Pairs, Side, Sides, pair_key, pair_sides
from harness.evaluation.shown import items_name
from harness.records.scores import TaskScore

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate, Scope


NO_MEAN = "no mean over items"
"""Why a score such as a perplexity or F1 is not paired by item."""


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one benchmark in both, over the pairs that have it."""

    benchmark: str
    metric: str
    firsts: tuple[TaskScore, ...]
    """Of each pair."""
    seconds: tuple[TaskScore, ...]
    of: str = ""
    """Which model, data and fraction, where the sides hold several."""
    requests: tuple[tuple[Side, Request, Side, Request], ...] = ()
    """What the pairs are made of."""
    errors: tuple[float | None, float | None] = (None, None)
    """Standard errors of both means."""
    interval: tuple[float, float] | None = None
    """95% interval of second minus first, paired by item and seed."""
    p_value: float | None = None
    """Of one pair that the two models do not differ, whatever their methods; of several seeds that
    the methods do not."""
    test: str = ""
    num_items: int = 0
    """Items of the pairs."""
    unpaired: str | None = None
    """Why there is no interval."""
    outcomes: Outcomes | None = None
    """Which items either side gets right; None without the items' records."""

    @property
    def first(self) -> TaskScore:
        """The score of the first pair, which says what all of them are."""
        return self.firsts[0]

    @property
    def second(self) -> TaskScore:
        """The same of the second side."""
        return self.seconds[0]

    @property
    def values(self) -> tuple[float, float]:
        """The mean of each side over the pairs."""
        first, second = (
            sum(score.value for score in scores) / len(scores)
            for scores in (self.firsts, self.seconds)
        )
        return first, second

    @property
    def scope(self) -> Scope | None:
        """What interval and p speak of: see `Estimate.scope`; None without them."""
        if self.interval is None:
            return None
        return "models" if len(self.requests) == 1 else "methods"

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.values[1] - self.values[0]


@dataclass(frozen=True)
class Comparison:
    """What `zbench compare` prints."""

    first: Sides
    second: Sides
    pairs: Pairs
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    """What neither recorded."""
    rows: tuple[ScoreRow, ...]
    only_first: tuple[TaskScore, ...]
    only_second: tuple[TaskScore, ...]


def compare(first: Side | Sides, second: Side | Sides) -> Comparison:
    """What differs between two sides, and their scores side by side.

    Raises:
        UsageError: the cells of a side cannot be told apart in the pairs.
        StorageError: records of items are damaged.
    """
    one, other = (
        side if isinstance(side, Sides) else Sides(side.label, (side,)) for side in (first, second)
    )
    return compare_pairs(one, other, pair_sides(one, other))


def compare_pairs(first: Sides, second: Sides, pairs: Pairs) -> Comparison:
    """The same, of sides that are paired already."""
    found: list[list[Difference]] = []
    unknown: dict[str, None] = {}
    lines: dict[object, list[tuple[Side, Request, Side, Request]]] = {}
    only: tuple[dict[object, TaskScore], ...] = ({}, {})
    names = _varying(pairs)
    for one, other in pairs.pairs:
        matched, left, right = pair_requests(requests_of(one.result), requests_of(other.result))
        of_requests = [each for pair in matched for each in request_differences(pair)]
        found.append(cell_differences(one.result, other.result) + merge(of_requests))
        unknown |= dict.fromkeys(unknown_of(matched))
        of = pair_key(one, other).text(*names)
        for mine, theirs in matched:
            for metric in dict.fromkeys(s.metric for r in (mine, theirs) for s in r.scores):
                scores = mine.score(metric), theirs.score(metric)
                for known, score in zip(only, scores, strict=True):
                    if score is not None and None in scores:
                        known.setdefault(_name(score), score)
                if None not in scores:
                    key = (of, mine.benchmark, metric, mine.evaluation, theirs.evaluation)
                    lines.setdefault(key, []).append((one, mine, other, theirs))
        for known, requests in zip(only, (left, right), strict=True):
            for request in requests:
                whole = [s for s in request.scores if s.task == s.benchmark]
                known |= {_name(s): s for s in whole if _name(s) not in known}
    rows = tuple(_score_row(str(key[0]), str(key[2]), each) for key, each in lines.items())  # type: ignore[index]
    differences = tuple(merge_pairs(found))
    return Comparison(
        first, second, pairs, differences, tuple(unknown), rows, *(tuple(o.values()) for o in only)
    )


def _name(score: TaskScore) -> tuple[object, ...]:
    return score.benchmark, score.metric, score.evaluation


def _varying(pairs: Pairs) -> list[str]:
    """What tells the tables of several pairs apart: all but the seed, over which is averaged."""
    keys = [pair_key(one, other) for one, other in pairs.pairs]
    names = [name for name in PAIRED_BY if name != "seed"]
    return [name for name in names if len({getattr(key, name) for key in keys}) > 1]


def _score_row(
    of: str, metric: str, requests: Sequence[tuple[Side, Request, Side, Request]]
) -> ScoreRow:
    scores = [(mine.score(metric), theirs.score(metric)) for _, mine, _, theirs in requests]
    firsts = tuple(score for score, _ in scores if score is not None)
    seconds = tuple(score for _, score in scores if score is not None)
    row = ScoreRow(
        firsts[0].benchmark, metric, firsts, seconds, of, tuple(requests),
        errors=(firsts[0].stderr, seconds[0].stderr) if len(requests) == 1 else (None, None),
    )  # fmt: skip
    found = _answers(requests, metric)
    known = [(a, b) for a, b in found if a is not None and b is not None]
    if len(known) < len(found):
        return replace(row, unpaired="no records of the items")
    agreed = all(
        agree(a, one) and agree(b, other)
        for (a, b), one, other in zip(known, firsts, seconds, strict=True)
    )
    better, reason = row.first.higher_is_better, "the items' records do not give the score"
    if not agreed and (row.first.unit is not None or not any(map(any, known))):
        # Of a perplexity the items are told apart by their log-likelihoods.
        reason, better = NO_MEAN, True
        found = _answers(requests, LOGLIKELIHOOD if row.first.unit is not None else metric)
        known = [(a, b) for a, b in found if a is not None and b is not None]
    items = list(known[0][0])
    if any(list(a) != items or list(b) != items for a, b in known):
        return replace(row, unpaired="other items" if agreed else reason)
    if items and (agreed or reason == NO_MEAN):
        row = replace(row, outcomes=_outcomes(known, better))
    return _tested(row, known) if agreed else _over_seeds(row, reason)


def _answers(
    requests: Sequence[tuple[Side, Request, Side, Request]], metric: str
) -> list[tuple[Answers | None, Answers | None]]:
    return [
        (answers_of(one, mine, metric), answers_of(other, theirs, metric))
        for one, mine, other, theirs in requests
    ]


def _outcomes(known: Sequence[tuple[Answers, Answers]], better: bool) -> Outcomes:
    import numpy as np

    first, second = (np.array([list(pair[at].values()) for pair in known]) for at in (0, 1))
    return outcomes_of(list(known[0][0]), first, second, higher_is_better=better)


def _over_seeds(row: ScoreRow, reason: str) -> ScoreRow:
    """The row of a score that is no mean over its items: what is known is its spread over seeds."""
    import numpy as np

    from harness.analysis.stats import Sample, combine

    if len(row.firsts) == 1 or reason != NO_MEAN:
        return replace(row, unpaired=reason)
    first, second = (np.array([one.value for one in side]) for side in (row.firsts, row.seconds))
    found = combine([Sample(second - first, num_items=row.first.n)])
    return replace(
        row,
        errors=(combine([Sample(first)]).stderr, combine([Sample(second)]).stderr),
        interval=found.interval,
        p_value=found.p_value,
        test="t, seeds",
        num_items=row.first.n,
    )


def _tested(row: ScoreRow, known: Sequence[tuple[Answers, Answers]]) -> ScoreRow:
    """The row with its interval and p, as the report has them (`analysis.stats`)."""
    import numpy as np

    from harness.analysis.paired import of_models

    gained = [{item: b[item] - a[item] for item in a} for a, b in known]
    estimate = _combined(gained, row.metric)
    p_value, test = estimate.p_value, "t, items × seeds" if len(known) > 1 else "t, items"
    answers = [np.array(list(found.values())) for found in known[0][::-1]]
    if len(known) == len(by_subject(known[0][0], row.metric)) == 1:
        estimate, p_value, test = of_models(estimate, *answers)
    errors = row.errors
    if len(known) > 1:
        first, second = (
            _combined([pair[at] for pair in known], row.metric).stderr for at in (0, 1)
        )
        errors = first, second
    return replace(
        row,
        errors=errors,
        interval=estimate.interval,
        p_value=p_value,
        test=test,
        num_items=estimate.num_items,
        unpaired=None if estimate.interval else "too few items",
    )


def _combined(answers: Sequence[Answers], metric: str) -> Estimate:
    """Mean over items and pairs; of a macro mean each subject weighs the same."""
    import numpy as np

    from harness.analysis.stats import Sample, combine

    groups = zip(*(by_subject(one, metric) for one in answers), strict=True)
    tables = [np.stack(group) for group in groups]
    return combine([Sample(t.mean(axis=1), t, None, t.shape[1], 1 / len(tables)) for t in tables])


def row_name(row: ScoreRow, rows: Sequence[ScoreRow]) -> str:
    """Benchmark and metric; with the items where several evaluations are of one name."""
    name = f"{row.benchmark} {row.metric}"
    same = [each for each in rows if (each.benchmark, each.metric, each.of) ==
            (row.benchmark, row.metric, row.of)]  # fmt: skip
    return f"{name} ({items_name(row.first)})" if len(same) > 1 else name
