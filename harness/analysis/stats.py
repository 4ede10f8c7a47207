"""Estimates with honest uncertainty: items × seeds, paired tests, and Holm's correction.

A score is measured on n items by k trained seeds. Both are samples, and they are crossed: every
seed answers the same items. So the error from the items does not shrink when seeds are added, and
that from the seeds does not shrink when items are added. The model is the two-way random-effects
one (Searle, Casella & McCulloch, Variance Components, 1992, chapter 4):

    x[s, i] = mean + seed[s] + item[i] + rest[s, i]
    Var(mean of all x) = Var(seed)/k + Var(item)/n + Var(rest)/(k·n)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.analysis.exact import PairedShares, Share
from harness.analysis.student import t_p_value, t_quantile, t_upper_tail

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True)
class Sample:
    """One benchmark's measurements, a summand of an estimate."""

    scores: np.ndarray
    """(k,): the score of each seed."""
    items: np.ndarray | None = None
    """(k, n): the score of each seed and item; its row means are `scores`."""
    stderrs: np.ndarray | None = None
    """(k,): standard error over the items of each seed, used where `items` is None."""
    num_items: int = 0
    weight: float = 1.0


Scope = Literal["methods", "models"]
"""What an estimate speaks of: methods, whatever their seeds; or, where nothing is known of the
spread over seeds, of these trained models alone."""
Basis = Literal["own", "pooled", "stated", "none"]
"""Where an estimate's seed variance comes from: its own seeds; its own with those of the grid's
other comparisons, or theirs alone; the grid's `seed_sd`; nowhere."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and items, in the unit of the scores (0..1), with its uncertainty."""

    value: float
    stderr: float | None
    """None where nothing is known of it."""
    df: float
    """Satterthwaite's degrees of freedom of `stderr`; infinite for a known variance."""
    num_seeds: int
    num_items: int
    """Items of all benchmarks that went in."""
    from_items: bool
    """Whether the items' records were at hand; else `stderr` is the conservative bound, or the
    seeds' alone."""
    seeds_alone: bool = False
    """Whether `stderr` knows the spread over the seeds alone, and takes the items as given."""
    scope: Scope = "methods"
    basis: Basis = "own"
    few: Share | PairedShares | None = None
    """Right/wrong answers of one seed to few items: the interval is then theirs, not Student's."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval, or None."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """The interval at a level (0..1): Student's t, or of few items the exact one; or None."""
        if self.stderr is None:
            return None
        if self.few is not None:
            return self.few.interval(level)
        reach = t_quantile((1 + level) / 2, self.df) * self.stderr
        return self.value - reach, self.value + reach

    @property
    def p_value(self) -> float | None:
        """Two-sided p of "the mean is 0" by Student's t; None where the error is unknown or 0."""
        if self.stderr is None or (self.stderr == 0 and self.value != 0):
            return None
        return 1.0 if self.value == 0 else t_p_value(self.value / self.stderr, self.df)

    def p_above(self, bound: float) -> float | None:
        """One-sided p of "the mean is at most `bound`" by Student's t: small where it lies above.

        None where the error is unknown or 0.
        """
        if not self.stderr:
            return None
        return t_upper_tail((self.value - bound) / self.stderr, self.df)

    def p_below(self, bound: float) -> float | None:
        """One-sided p of "the mean is at least `bound`": small where it lies below; see
        `p_above`."""
        if not self.stderr:
            return None
        return t_upper_tail((bound - self.value) / self.stderr, self.df)


@dataclass(frozen=True)
class SeedVariance:
    """What is known of the variance of one run's score, or difference, over seeds."""

    variance: float
    """It holds the run's own errors on items, the rest, too: the mean of n items varies by both."""
    df: float
    """Infinite for a value that is taken as known."""
    basis: Basis
    rest: float = 0.0
    """How much of it is the rest, as far as known: one seed's items hold that once more."""


@dataclass(frozen=True)
class Components:
    """Components of the variance of a paired difference.

    Of k seeds and n items: Var = seed/k + item/n + rest/(k·n). Of an average over benchmarks they
    hold where its parts keep their shares of the n items.
    """

    seed: float
    """Variance between runs beyond what their items' rest explains."""
    item: float
    """Variance of one item, common to the runs."""
    rest: float
    """Variance of one run on one item."""
    num_items: int
    df: float
    """Degrees of freedom of `seed` with its rest; infinite where it is stated."""
    basis: Basis


@dataclass(frozen=True)
class Terms:
    """What the samples themselves say: see `combine`."""

    value: float
    num_seeds: int
    num_items: int
    from_items: bool
    spread: float | None
    """S² of the weighted sum over seeds; None of one seed."""
    shared: float | None
    """Variance of the mean from items common to the seeds (of one seed: from items); None where
    that is unknown."""
    rest: float
    """Variance of one seed's mean from its own errors on items; 0 where it cannot be told."""
    squares: float
    """Satterthwaite's summands of the items."""

    @property
    def own(self) -> SeedVariance | None:
        """What its own seeds tell; None of one seed."""
        if self.spread is None:
            return None
        return SeedVariance(self.spread, self.num_seeds - 1, "own", self.rest)

    def estimate(self, seeds: SeedVariance | None) -> Estimate:
        """The estimate with what is known of the seeds' variance; None: of these models alone."""
        scope: Scope = "models" if seeds is None else "methods"
        basis: Basis = "none" if seeds is None else seeds.basis
        variance, squares = self.shared or 0.0, self.squares
        if seeds is not None:
            variance += self._between(seeds)
            # Satterthwaite: df = Var² / Σ (term² / its df).
            squares += (self._counted(seeds) / self.num_seeds) ** 2 / seeds.df
        elif self.shared is None:
            return Estimate(
                self.value, None, math.inf, self.num_seeds, self.num_items, self.from_items,
                scope=scope, basis=basis,
            )  # fmt: skip
        return Estimate(
            self.value,
            math.sqrt(variance),
            variance**2 / squares if squares > 0 else math.inf,
            self.num_seeds,
            self.num_items,
            self.from_items,
            seeds_alone=self.shared is None,
            scope=scope,
            basis=basis,
        )

    def _between(self, seeds: SeedVariance) -> float:
        if self.num_seeds > 1:
            return max(seeds.variance, self.rest) / self.num_seeds
        # One seed's items vary by item and rest together, so that the rest is counted already.
        return seeds.variance if self.shared is None else max(0.0, seeds.variance - seeds.rest)

    def _counted(self, seeds: SeedVariance) -> float:
        """What the degrees of freedom of the seeds' part count for.

        A pool's floor is known better than the pool, and counts not. Its own seeds, or one degree
        of freedom for one seed, tell so little that the floor is taken as if it were drawn too.
        """
        if seeds.basis == "own":
            return max(seeds.variance, self.rest)
        is_poor = self.num_seeds == 1 and seeds.df < 2
        return max(seeds.variance, seeds.rest) if is_poor else seeds.variance

    def components(self, seeds: SeedVariance | None) -> Components | None:
        """The components with what is known of the seeds' variance; None where nothing is."""
        if seeds is None or self.num_items == 0:
            return None
        if self.shared is None:
            return Components(seeds.variance, 0.0, 0.0, self.num_items, seeds.df, seeds.basis)
        rest = self.rest if self.num_seeds > 1 else seeds.rest
        shared = self.shared if self.num_seeds > 1 else max(0.0, self.shared - rest)
        return Components(
            max(0.0, seeds.variance - rest), shared * self.num_items, rest * self.num_items,
            self.num_items, seeds.df, seeds.basis,
        )  # fmt: skip


def combine(samples: Sequence[Sample]) -> Estimate:
    """Weighted sum of benchmarks' scores, over seeds and items, by what they say themselves.

    With A[s] the weighted sum of one seed, S² the variance of A over seeds, and MS_item and MS_rest
    the mean squares of each benchmark's seeds × items table:

        Var = max(S²/k, Σ w² MS_rest/(k·n)) + Σ w² max(0, MS_item - MS_rest)/(k·n)

    The first term is what differs between seeds (never less than the rest alone gives, so that a
    lucky agreement of two or three seeds does not shrink it), the second the items that all seeds
    share. Benchmarks' items are independent; their seeds are the same models, which S² of the sum
    takes in. One seed: Σ w² (sample variance over items)/n, as lm-eval's own standard error, which
    speaks of this model alone. Where a benchmark lacks its items' records, the mean of its squared
    standard errors stands for the item term: an upper bound, since it counts the rest twice. Where
    that is unknown too, as of a perplexity, S²/k alone is left. Samples are one or more, with the
    same seeds in the same order. `moderation` says what S² becomes where a grid knows more.
    """
    terms = terms_of(samples)
    return terms.estimate(terms.own)


def terms_of(samples: Sequence[Sample]) -> Terms:
    """What the samples say of a weighted sum, before anything is said of the seeds' variance."""
    import numpy as np

    num_seeds = len(samples[0].scores)
    composite = sum(sample.weight * sample.scores for sample in samples)
    assert isinstance(composite, np.ndarray)
    parts = [_item_part(sample) for sample in samples]
    known = [part for part in parts if part is not None]
    complete = len(known) == len(parts)
    return Terms(
        value=float(composite.mean()),
        num_seeds=num_seeds,
        num_items=sum(sample.num_items for sample in samples),
        from_items=all(sample.items is not None for sample in samples),
        spread=float(composite.var(ddof=1)) if num_seeds > 1 else None,
        shared=sum(part.shared for part in known) if complete else None,
        rest=sum(part.rest for part in known) * num_seeds if complete else 0.0,
        squares=sum(part.square_over_df for part in known) if complete else 0.0,
    )


@dataclass(frozen=True)
class _ItemPart:
    shared: float
    """Variance of the weighted mean from items common to the seeds (for one seed: from items)."""
    rest: float
    """Variance from the seeds' own errors on items."""
    square_over_df: float
    """Satterthwaite's summand."""


def _item_part(sample: Sample) -> _ItemPart | None:
    """What a benchmark's items add to the variance; None where that is unknown."""
    weight = sample.weight**2
    if sample.items is None:
        if sample.stderrs is None or sample.num_items < 2:
            return None
        shared = weight * float((sample.stderrs**2).mean())
        return _ItemPart(shared, 0.0, shared**2 / (sample.num_items - 1))
    num_seeds, num_items = sample.items.shape
    if num_items < 2:
        return None
    ms_item, ms_rest = mean_squares(sample.items)
    scale = weight / (num_seeds * num_items)
    rest_df = max(1, (num_seeds - 1) * (num_items - 1))
    square = (scale * ms_item) ** 2 / (num_items - 1) + (scale * ms_rest) ** 2 / rest_df
    return _ItemPart(scale * max(0.0, ms_item - ms_rest), scale * ms_rest, square)


def mean_squares(items: np.ndarray) -> tuple[float, float]:
    """Mean squares of items and of the rest of a (seeds, items) table.

    Of one seed the rest is 0 (it cannot be told from the items).
    """
    num_seeds, num_items = items.shape
    item_means = items.mean(axis=0)
    grand = item_means.mean()
    ms_item = num_seeds * float(((item_means - grand) ** 2).sum()) / (num_items - 1)
    if num_seeds == 1:
        return ms_item, 0.0
    rest = items - item_means[None, :] - items.mean(axis=1)[:, None] + grand
    return ms_item, float((rest**2).sum()) / ((num_seeds - 1) * (num_items - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values (Scandinavian Journal of Statistics 1979), in order.

    They control the chance of even one false claim among all of them. None stays None and does
    not count.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = highest
    return adjusted


def binomial_stderr(share: float, num_items: int) -> float:
    """Standard error of a share of right answers (0..1) on `num_items` items."""
    return math.sqrt(share * (1 - share) / num_items)
