"""Scores and paired differences in one column, with what the grid knows of their seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

from harness.analysis.columns import Group, stated_sd
from harness.analysis.exact import (
    FEW_ITEMS,
    PairedShares,
    Share,
    are_few,
    mcnemar_exact,
    sign_flip_p,
)
from harness.analysis.moderation import Pool, exceeds, most_scattered, pair_pool, single_pool
from harness.analysis.stats import (
    Components,
    Estimate,
    Sample,
    SeedVariance,
    Terms,
    combine,
    mean_squares,
    terms_of,
)
from harness.analysis.variants import Variant

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from harness.analysis.columns import Setting, stated_sd
    from harness.analysis.frames import ReportInput

Pairs = Sequence[tuple[str, str]]
"""Ids of cells: the minuend's and the subtrahend's."""


class Scores(Protocol):
    """What is asked of a grid's scores: see `Measurements`."""

    @property
    def data(self) -> ReportInput: ...
    @property
    def tabled_once(self) -> Sequence[Variant]: ...
    def seed_scores(
        self, variant: Variant, group: Group, column: str
    ) -> Mapping[int | None, float]: ...
    def seeds_with(
        self, variant: Variant, group: Group, column: str
    ) -> Mapping[int | None, str]: ...
    def score_rows(self, setting: Setting, cell_ids: Sequence[str]) -> list[dict[str, Any]]: ...
    def table(
        self, cell_ids: list[str], setting: Setting
    ) -> tuple[pd.Index, np.ndarray] | None: ...
    def is_no_mean(self, cell_ids: Sequence[str], setting: Setting) -> bool: ...


@dataclass(frozen=True)
class Difference:
    """A paired difference between two variants in one column."""

    estimate: Estimate
    p_value: float | None
    """Of "the methods do not differ"; None where nothing is known of their seeds."""
    p_models: float | None
    """Of "these two trained models do not differ on new items", where that is all that is known."""
    test: str
    """`t, items × seeds`, of a score that is no mean over its items `t, seeds`, each followed by
    `, pooled` or `, stated` where more than its own seeds went in; of two models alone `McNemar,
    exact`, `sign flips` or `t, items`; empty without a test."""


@dataclass(frozen=True)
class _Paired:
    """What two variants' own records say of their difference."""

    terms: Terms
    answers: tuple[np.ndarray, np.ndarray] | None
    """Of one seed and one benchmark: (n,) scores of both; else None."""


class Paired:
    """The paired differences of a grid's measurements, and what they know together."""

    def __init__(self, measured: Scores) -> None:
        self._measured = measured
        self._pool = cache(self._find_pool)
        self._rest = cache(self._find_rest)

    def difference(
        self, left: Variant, right: Variant, group: Group, column: str
    ) -> Difference | None:
        """See `Measurements.difference`."""
        found = self._paired(left, right, group, column)
        if found is None:
            return None
        terms, seeds = found.terms, self._seeds(found.terms, (left, right), group, column)
        estimate = terms.estimate(seeds)
        if seeds is None:
            return _of_models(estimate, found.answers)
        test = "t, seeds" if estimate.seeds_alone else "t, items × seeds"
        test += "" if estimate.basis == "own" else f", {estimate.basis}"
        return Difference(estimate, estimate.p_value, None, test)

    def components(
        self, left: Variant, right: Variant, group: Group, column: str
    ) -> Components | None:
        """See `Measurements.components`."""
        found = self._paired(left, right, group, column)
        if found is None:
            return None
        known = found.terms.components(self._seeds(found.terms, (left, right), group, column))
        if known is not None and known.seed == known.item == known.rest == 0:
            return None  # all alike, which tells no error
        return known

    def score(
        self, variant: Variant, group: Group, column: str, samples: Sequence[Sample]
    ) -> Estimate | None:
        """See `Measurements.pooled`; None of one seed."""
        terms = terms_of(samples)
        seeds = self._seeds(terms, (variant,), group, column)
        return None if seeds is None or terms.spread is None else terms.estimate(seeds)

    def _seeds(
        self, terms: Terms, variants: Sequence[Variant], group: Group, column: str
    ) -> SeedVariance | None:
        """What is known of the variance over seeds: of the grid's comparisons of this kind, else of
        its own seeds, or what the grid states."""
        trained = [variant for variant in variants if variant.fraction is not None]
        if not trained:
            return None
        variant, of_pairs = trained[0], len(trained) == 2
        pool = self._pool(variant.model, variant.data, group, column, of_pairs)
        if terms.spread is not None:
            if pool is not None and len(pool.variances) > 1:
                return pool.moderate(terms.spread, terms.num_seeds - 1)
            stated = self._stated(len(trained), group, column)
            return terms.own if stated is None or exceeds(terms.own, stated) else stated
        rest = 0.0
        if pool is not None and terms.shared is not None:
            rest = self._rest(variant.model, variant.data, group, column, of_pairs)
        if pool is None and of_pairs:
            # No two methods share two seeds: each one's own variance, were they independent.
            alone = self._pool(variant.model, variant.data, group, column, False)
            if alone is not None:
                found = alone.borrow()
                return replace(found, variance=2 * found.variance)
        return self._stated(len(trained), group, column) if pool is None else pool.borrow(rest)

    def _stated(self, num_trained: int, group: Group, column: str) -> SeedVariance | None:
        """The grid's `seed_sd`: the variance of one run's score, of two runs' difference twice."""
        stated = stated_sd(self._measured.data.seed_sd, group, column)
        if stated is None:
            return None
        sd = stated.points / (100 if group.unit(column) is None else 1)
        return SeedVariance(num_trained * sd**2, float("inf"), "stated")

    def _tabled(self, model: str, data: str | None) -> Iterator[Variant]:
        """The trained variants of the tables of one model and data set, each training once."""
        for variant in self._measured.tabled_once:
            if (variant.model, variant.data) == (model, data) and variant.fraction is not None:
                yield variant

    def most_scattered(
        self, model: str, data: str | None, group: Group, column: str
    ) -> tuple[Variant, float] | None:
        """See `Measurements.most_scattered`."""
        return most_scattered(self._by_seed(model, data, group, column))

    def _by_seed(
        self, model: str, data: str | None, group: Group, column: str
    ) -> dict[Variant, dict[int, float]]:
        return {
            variant: {
                seed: score
                for seed, score in self._measured.seed_scores(variant, group, column).items()
                if seed is not None
            }
            for variant in self._tabled(model, data)
        }

    def _find_pool(
        self, model: str, data: str | None, group: Group, column: str, of_pairs: bool
    ) -> Pool | None:
        """The seed variances of all pairs of trained variants; or of each against an untrained
        model."""
        scores = self._by_seed(model, data, group, column)
        return pair_pool(scores) if of_pairs else single_pool(scores)

    def _find_rest(
        self, model: str, data: str | None, group: Group, column: str, of_pairs: bool
    ) -> float:
        """The mean over the pool of the variance that runs' own errors on items give one run; 0
        where items are missing."""
        variants = list(self._tabled(model, data))
        pairs = combinations(variants, 2) if of_pairs else ((v, None) for v in variants)
        known = []
        for left, right in pairs:
            cells = self._measured.seeds_with(left, group, column)
            others = {} if right is None else self._measured.seeds_with(right, group, column)
            common = [seed for seed in cells if right is None or seed in others]
            if len(common) > 1:
                ours, theirs = [cells[s] for s in common], [others[s] for s in common if others]
                rest = self._rest_of(ours, theirs, group, column)
                known += [] if rest is None else [rest]
        return sum(known) / len(known) if known else 0.0

    def _rest_of(
        self, ours: Sequence[str], theirs: Sequence[str], group: Group, column: str
    ) -> float | None:
        total = 0.0
        for part, weight in group.weights_of(column).items():
            setting = group.settings[part]
            first = self._measured.table(list(ours), setting)
            second = self._measured.table(list(theirs), setting) if theirs else None
            if first is None or (theirs and second is None):
                return None
            items = first[1] if second is None else first[1] - second[1]
            total += weight**2 * mean_squares(items)[1] / items.shape[1]
        return total

    def _paired(self, left: Variant, right: Variant, group: Group, column: str) -> _Paired | None:
        """None where the two share no seed or items are missing."""
        pairs = self._cells(left, right, group, column)
        if not pairs:
            return None
        samples = []
        for part, weight in group.weights_of(column).items():
            setting = group.settings[part]
            first = self._measured.table([cell for cell, _ in pairs], setting)
            second = self._measured.table([cell for _, cell in pairs], setting)
            if first is None or second is None or not first[0].equals(second[0]):
                cells = [cell for pair in pairs for cell in pair]
                if not self._measured.is_no_mean(cells, setting):
                    return None
                return _Paired(self._of_seeds(pairs, group, column), None)
            answers = first[1], second[1]
            items = answers[0] - answers[1]
            samples.append(Sample(items.mean(axis=1), items, None, items.shape[1], weight))
        alone = len(samples) == len(pairs) == 1
        return _Paired(terms_of(samples), (answers[0][0], answers[1][0]) if alone else None)

    def _cells(self, left: Variant, right: Variant, group: Group, column: str) -> Pairs:
        """Cells of equal seeds that have the column; an untrained model stands against each."""
        ours, theirs = (self._measured.seeds_with(v, group, column) for v in (left, right))
        if None in ours:
            ours = dict.fromkeys(theirs, ours[None])
        return [
            (cell_id, theirs[None if None in theirs else seed])
            for seed, cell_id in ours.items()
            if seed in theirs or None in theirs
        ]

    def _of_seeds(self, pairs: Pairs, group: Group, column: str) -> Terms:
        """Of scores that are no means over items: their spread over seeds; the items are taken as
        given."""
        import numpy as np

        samples = []
        for part, weight in group.weights_of(column).items():
            scores = [self._measured.score_rows(group.settings[part], pair) for pair in pairs]
            values = np.array([ours["value"] - theirs["value"] for ours, theirs in scores])
            number = min(int(ours["n"]) for ours, _ in scores)
            samples.append(Sample(values, num_items=number, weight=weight))
        return terms_of(samples)


def _of_models(estimate: Estimate, answers: tuple[np.ndarray, np.ndarray] | None) -> Difference:
    """What one seed says of two trained models."""
    if answers is None:
        test = "" if estimate.stderr is None else "t, items"
        return Difference(estimate, None, estimate.p_value, test)
    found, p_models, test = of_models(estimate, *answers)
    return Difference(found, None, p_models, test)


def of_models(
    estimate: Estimate, first: np.ndarray, second: np.ndarray
) -> tuple[Estimate, float | None, str]:
    """The estimate of two models' difference on one benchmark, its p, and the test's name.

    `first` and `second` are the (n,) scores of both. Exact where the items are right or wrong, and
    of few items by a permutation test.
    """
    import numpy as np

    number = len(first)
    if np.isin((first, second), (0.0, 1.0)).all():
        wins, losses = int((first > second).sum()), int((first < second).sum())
        if are_few(number, wins + losses) and estimate.stderr is not None:
            estimate = replace(estimate, few=PairedShares(wins, losses, number))
        return estimate, mcnemar_exact(first, second), "McNemar, exact"
    if number < FEW_ITEMS:
        return estimate, sign_flip_p(first - second), "sign flips"
    return estimate, estimate.p_value, "t, items"


def alone(samples: Sequence[Sample], variant: Variant) -> Estimate:
    """The estimate of one variant's score; of right/wrong answers to few items with its interval.

    An untrained model is itself: there is no seed that it would speak beyond.
    """
    import numpy as np

    estimate = combine(samples)
    if variant.fraction is None:
        estimate = replace(estimate, scope="methods")
    items = samples[0].items
    if items is None or len(samples) > 1 or len(items) > 1 or estimate.stderr is None:
        return estimate
    number, right = items.shape[1], int(items.sum())
    if not np.isin(items, (0.0, 1.0)).all() or not are_few(number, right, number - right):
        return estimate
    return replace(estimate, few=Share(right, number))
