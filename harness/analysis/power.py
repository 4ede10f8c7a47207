"""What a comparison can detect before it is run, and what it would take.

The smallest detectable difference of a two-sided test at level α with power 1-β is about
(t(1-α/2) + t(1-β)) standard errors (Cohen 1988), with the variance of the paired difference

    seed/k + item/n + rest/(k·n)

over k seeds and n items. All functions are pure; all numbers are in the unit of the scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.analysis.stats import Components, t_quantile

LEVEL, POWER = 0.05, 0.80
"""Level of the two-sided test, and the chance that it finds the difference."""
MOST_SEEDS = 1000
"""What nobody trains: more seeds than that count as never."""


@dataclass(frozen=True)
class Spread:
    """The variance of a paired difference, by what it comes from."""

    seed: float
    """Of one pair of runs, over re-trainings."""
    item_error: float
    """Of the items: what is left of the variance with endless seeds; item/n, of an average the
    weighted sum over its benchmarks."""
    rest_error: float = 0.0
    """rest/n: what one pair of runs adds on these items."""
    num_items: int = 0
    prior_df: float = math.inf
    """Degrees of freedom of what is known of `seed` beside the planned seeds' own: infinite where
    it is taken as known, 0 where it will be estimated from them alone."""
    num_methods: int = 0
    """Methods that will have as many seeds: the variances of several seeds of three or more are
    pooled, and then nothing else is known of `seed`. 0 where that is in `prior_df`."""

    def variance(self, num_seeds: int) -> float:
        """Of the mean difference over so many seeds."""
        return (self.seed + self.rest_error) / num_seeds + self.item_error

    def df(self, num_seeds: int) -> float:
        """Satterthwaite's degrees of freedom: the seeds have the prior's and k - 1 of their own."""
        seeds, own = (self.seed + self.rest_error) / num_seeds, num_seeds - 1
        known = self.prior_df + own
        if own > 0 and self.num_methods > 2:
            known = (self.num_methods - 1) * own
        parts = ((seeds, known), (self.item_error, self.num_items - 1))
        squares = sum(part**2 / df for part, df in parts if part > 0 and df > 0)
        if seeds > 0 and known <= 0:
            return 0.0
        return self.variance(num_seeds) ** 2 / squares if squares > 0 else math.inf


def detectable(spread: Spread, num_seeds: int, level: float = LEVEL) -> float:
    """The smallest difference that so many seeds detect; infinite where they test nothing.

    That is where one seed is all that is known of the seeds.
    """
    df = spread.df(num_seeds)
    if df <= 0:
        return math.inf
    factor = t_quantile(1 - level / 2, df) + t_quantile(POWER, df)
    return factor * math.sqrt(spread.variance(num_seeds))


def seeds_needed(spread: Spread, difference: float, level: float = LEVEL) -> int | None:
    """The fewest seeds that detect a difference; None where no number of them does.

    Of two or more seeds more never detect less, so that the number is found by halving.
    """

    def suffices(num_seeds: int) -> bool:
        return detectable(spread, num_seeds, level) <= difference

    if not suffices(MOST_SEEDS):
        return None
    low, high = 0, 1
    while not suffices(high):
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def items_needed(spread: Spread, difference: float, level: float = LEVEL) -> int:
    """How many items it would take at least, whatever the seeds, of the kind that there are."""
    factor = t_quantile(1 - level / 2, math.inf) + t_quantile(POWER, math.inf)
    share = spread.item_error / (difference / factor) ** 2
    return math.ceil(spread.num_items * share)


def spread_of(components: Components, num_seeds: int) -> Spread:
    """What `num_seeds` measured seeds tell: of other numbers of seeds, the same components.

    What the components know of the seeds beside these seeds' own k - 1 degrees of freedom stays
    known whatever is planned.
    """
    number = components.num_items
    return Spread(
        components.seed,
        components.item / number,
        components.rest / number,
        number,
        max(0.0, components.df - (num_seeds - 1)),
    )


def stated_spread(
    seed_sd: float, weights: tuple[tuple[float, int], ...], num_methods: int = 0
) -> Spread:
    """What a stated spread over re-trainings and the number of items tell before any result.

    Args:
        seed_sd: standard deviation of one model's score over re-trainings (0..1).
        weights: weight and number of items of each benchmark of the column.
        num_methods: methods that will have as many seeds, see `Spread`.

    Returns:
        A difference of two runs has twice the variance of one. Of the items nothing is known but
        their number: two answers at 50%, unpaired, differ with variance 1/2, which the paired
        differences of two models that agree more than by chance stay below.
    """
    items = sum(weight**2 * 0.5 / number for weight, number in weights)
    total = sum(number for _, number in weights)
    return Spread(2 * seed_sd**2, items, 0.0, total, num_methods=num_methods)


POINT = 0.01
"""The difference that a plan asks about in any case: one point of a share."""


@dataclass(frozen=True)
class Need:
    """What it takes to detect a difference."""

    difference: float
    seeds: int | None
    """The fewest; None where no number of seeds does, as the items alone hide it."""
    items: int | None = None
    """Where no number of seeds does: how many items it would take at least."""


@dataclass(frozen=True)
class Reach:
    """What the seeds and items of a claim can detect, in the unit of the scores."""

    num_seeds: int
    num_items: int
    smallest: float
    """The smallest detectable difference; infinite where nothing can be detected."""
    point: Need | None
    """Of one point; None of what is no share."""
    margin: Need | None
    """Of the claim's margin, where it has one."""
    source: str = ""
    """Where the spread is known from, in words."""
    published: Need | None = None
    """Of the published difference, where there is one."""

    @property
    def reaches_margin(self) -> bool:
        """Whether the claim's margin can be detected; true without one."""
        return self.margin is None or self.smallest <= self.margin.difference


def need(spread: Spread, difference: float, level: float = LEVEL) -> Need:
    """What it takes to detect a difference with such a spread."""
    seeds = seeds_needed(spread, difference, level)
    return Need(difference, seeds, None if seeds else items_needed(spread, difference, level))


def reach_of(
    spread: Spread,
    num_seeds: int,
    margin: float | None,
    *,
    level: float = LEVEL,
    is_share: bool = True,
    source: str = "",
    published: float | None = None,
) -> Reach:
    """What so many seeds can detect, and what one point and the margin take.

    Args:
        spread: of the paired difference.
        num_seeds: planned, or measured.
        margin: the claim's.
        level: of the two-sided test; of several claims their share of it.
        is_share: whether the scores are shares, of which a point is a hundredth.
        source: where the spread is known from, in words.
        published: a published difference that it is to be compared with.
    """
    return Reach(
        num_seeds,
        spread.num_items,
        detectable(spread, num_seeds, level),
        need(spread, POINT, level) if is_share else None,
        None if margin is None else need(spread, margin, level),
        source,
        need(spread, abs(published), level) if published else None,
    )
