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
from typing import TYPE_CHECKING

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

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval by Student's t, or None."""
        if self.stderr is None:
            return None
        reach = t_quantile((1 + LEVEL) / 2, self.df) * self.stderr
        return self.value - reach, self.value + reach

    @property
    def p_value(self) -> float | None:
        """Two-sided p of "the mean is 0" by Student's t; None where the error is unknown or 0."""
        if self.stderr is None or (self.stderr == 0 and self.value != 0):
            return None
        return 1.0 if self.value == 0 else t_p_value(self.value / self.stderr, self.df)


def combine(samples: Sequence[Sample]) -> Estimate:
    """Weighted sum of benchmarks' scores, over seeds and items.

    With A[s] the weighted sum of one seed, S² the variance of A over seeds, and MS_item and MS_rest
    the mean squares of each benchmark's seeds × items table:

        Var = max(S²/k, Σ w² MS_rest/(k·n)) + Σ w² max(0, MS_item - MS_rest)/(k·n)

    The first term is what differs between seeds (never less than the rest alone gives, so that a
    lucky agreement of two or three seeds does not shrink it), the second the items that all seeds
    share. Benchmarks' items are independent; their seeds are the same models, which S² of the sum
    takes in. One seed: Σ w² (sample variance over items)/n, as lm-eval's own standard error. Where
    a benchmark lacks its items' records, the mean of its squared standard errors stands for the
    item term: an upper bound, since it counts the rest twice. Where that is unknown too, as of a
    perplexity, S²/k alone is left. Samples are one or more, with the same seeds in the same order.
    """
    import numpy as np

    num_seeds = len(samples[0].scores)
    composite = sum(sample.weight * sample.scores for sample in samples)
    assert isinstance(composite, np.ndarray)
    parts = [_item_part(sample) for sample in samples]
    value = float(composite.mean())
    num_items = sum(sample.num_items for sample in samples)
    from_items = all(sample.items is not None for sample in samples)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        if num_seeds == 1:
            return Estimate(value, None, math.inf, 1, num_items, from_items)
        stderr = math.sqrt(float(composite.var(ddof=1)) / num_seeds)
        return Estimate(value, stderr, num_seeds - 1, num_seeds, num_items, from_items, True)
    variance = sum(part.shared for part in known)
    squares = sum(part.square_over_df for part in known)
    if num_seeds > 1:
        between = float(composite.var(ddof=1)) / num_seeds
        floor = sum(part.rest for part in known)
        variance += max(between, floor)
        # Satterthwaite: df = Var² / Σ (term² / its df); the seed term has k - 1.
        squares += max(between, floor) ** 2 / (num_seeds - 1)
    df = variance**2 / squares if squares > 0 else math.inf
    return Estimate(value, math.sqrt(variance), df, num_seeds, num_items, from_items)


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


def mcnemar_exact(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test on right/wrong answers, (n,) of 0 and 1, to n items.

    Under the null each item that only one of the two got right is as likely the one's as the
    other's (McNemar, Psychometrika 1947): a binomial test of the discordant items at 1/2.
    """
    wins = int(((first == 1) & (second == 0)).sum())
    losses = int(((first == 0) & (second == 1)).sum())
    num_discordant, fewer = wins + losses, min(wins, losses)
    term = total = 1
    for count in range(1, fewer + 1):
        term = term * (num_discordant - count + 1) // count
        total += term
    return min(1.0, 2 * total / 2**num_discordant)


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


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t, the normal's for infinite `df`."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))


def t_p_value(statistic: float, df: float) -> float:
    """Two-sided p of Student's t, the normal's for infinite `df`."""
    from scipy.special import ndtr, stdtr

    lower = -abs(statistic)
    return float(2 * (ndtr(lower) if math.isinf(df) else stdtr(df, lower)))
