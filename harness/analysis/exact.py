"""Intervals and tests for few items, where the central limit theorem does not hold yet.

Below a few hundred items the normal interval is too short: Bowyer, Aitchison & Ivanova (arXiv
2503.01747) show it for scores of language models. Of right/wrong answers by one seed the intervals
here invert a score test instead, and p values are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FEW_ITEMS = 300
"""Fewer items than these are few: "a few hundred" of arXiv 2503.01747."""
FEWEST = 10
"""Fewer right, wrong or discordant answers than these are few, among however many items: the usual
condition of the normal approximation to a binomial."""


def are_few(number: int, *counts: int) -> bool:
    """Whether the normal interval is not to be trusted on so many items, of which these count."""
    return number < FEW_ITEMS or min(counts) < FEWEST


@dataclass(frozen=True)
class Share:
    """Right answers among few items, of one model."""

    right: int
    number: int

    def interval(self, level: float) -> tuple[float, float]:
        """Wilson's score interval of the share (Journal of the American Statistical Association
        1927)."""
        z, n = _normal_quantile(level), self.number
        share, shrunk = self.right / n, 1 + z * z / n
        centre = (share + z * z / (2 * n)) / shrunk
        reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrunk
        return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True)
class PairedShares:
    """Few items that two models answer: how many only the first gets right, only the second."""

    wins: int
    losses: int
    number: int

    def interval(self, level: float) -> tuple[float, float]:
        """Tango's score interval of the difference of the two shares (Statistics in Medicine 1998).

        Its ends are the differences at which the score test's statistic is ±z.
        """
        z = _normal_quantile(level)
        value = (self.wins - self.losses) / self.number
        return self._end(-1.0, value, z), self._end(1.0, value, -z)

    def _end(self, outer: float, inner: float, z: float) -> float:
        """The difference between `outer` and the estimate at which the statistic is z: bisection,
        since the statistic falls in the difference."""
        low, high = min(outer, inner), max(outer, inner)
        for _ in range(60):
            middle = (low + high) / 2
            if self._statistic(middle) > z:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _statistic(self, difference: float) -> float:
        """Tango's score statistic of "the difference is this", equation 4."""
        n, b, c = self.number, self.wins, self.losses
        # The share of items that only the second gets right, most likely under the difference.
        linear = -b - c + (2 * n - b + c) * difference
        constant = -c * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
        only_second = (root - linear) / (4 * n)
        variance = n * (2 * only_second + difference * (1 - difference))
        gap = b - c - n * difference
        if variance <= 0:
            return 0.0 if gap == 0 else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)


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


NUM_FLIPS = 9999
"""Draws of signs where there are too many to try them all."""
MOST_TRIED = 13
"""Items that differ whose 2^n signs are all tried."""


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of a permutation test on paired differences, (n,): their signs are flipped.

    Under the null each item's difference is as likely with the other sign (Fisher 1935). All signs
    are tried where few items differ, else drawn from a fixed generator, the observed ones counted
    among them (Phipson & Smyth 2010), so that the p is never 0 and always the same.
    """
    import numpy as np

    values = differences[differences != 0]
    observed = abs(values.sum())
    if len(values) == 0:
        return 1.0
    slack = 1e-12 * np.abs(values).sum()  # sums that are equal but for rounding
    if len(values) <= MOST_TRIED:
        numbers = np.arange(2 ** len(values))[:, None] >> np.arange(len(values))
        sums = np.abs((1 - 2 * (numbers & 1)) @ values)
        return float((sums >= observed - slack).mean())
    signs = np.random.default_rng(0).integers(0, 2, (NUM_FLIPS, len(values)), dtype=np.int8)
    sums = np.abs((1 - 2 * signs) @ values)
    return float((1 + (sums >= observed - slack).sum()) / (1 + NUM_FLIPS))


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
