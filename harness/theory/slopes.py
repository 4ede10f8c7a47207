"""Slopes on log-log axes, with bootstrap intervals over the repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.theory.world import Array

FEWEST_OBSERVATIONS = 1000
"""Slopes are fitted from here on: below, rates are not yet those of large n."""
NUM_BOOTSTRAPS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Slope:
    """A fitted exponent: error ~ n^value."""

    value: float
    low: float
    high: float

    def covers(self, exponent: float) -> bool:
        """Whether the interval holds an exponent."""
        return self.low <= exponent <= self.high


def verdict(slope: Slope | None, exponent: float) -> str:
    """Where an interval lies from an exponent: `holds it`, `steeper`, `flatter`, or a dash.

    Steeper is faster: the error falls more quickly than the exponent says.
    """
    if slope is None:
        return "–"
    if slope.covers(exponent):
        return "holds it"
    return "steeper" if slope.high < exponent else "flatter"


def fit_slope(
    sizes: Sequence[int],
    errors: Sequence[Array],
    random: np.random.Generator,
    *,
    fewest: int = FEWEST_OBSERVATIONS,
) -> Slope | None:
    """Least-squares slope of log(mean error) on log n, with its interval.

    The mean, not the mean logarithm: an over-fitted cell's error is near 0 in a part of the
    repetitions. The interval is a percentile bootstrap over the repetitions within each n; it
    knows nothing of a lack of fit to a line. `sizes` are n, ascending, `errors` those of the
    repetitions at each; NaN and n below `fewest` are left out.

    Returns:
        None where fewer than two n have an error above 0.
    """
    known = [(n, values[~np.isnan(values)]) for n, values in zip(sizes, errors, strict=True)]
    used = [(n, values) for n, values in known if n >= fewest and len(values) and values.max() > 0]
    if len(used) < 2:
        return None
    log_n = np.log([n for n, _ in used])
    lever = (log_n - log_n.mean()) / ((log_n - log_n.mean()) ** 2).sum()
    value = float(sum(c * np.log(e.mean()) for c, (_, e) in zip(lever, used, strict=True)))
    again = np.zeros(NUM_BOOTSTRAPS)
    for c, (_, values) in zip(lever, used, strict=True):
        drawn = random.integers(len(values), size=(NUM_BOOTSTRAPS, len(values)))
        again += c * np.log(np.maximum(values[drawn].mean(axis=1), 1e-300))
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Slope(value, float(low), float(high))


def logarithmic_slope(power: float, sizes: Sequence[int]) -> float:
    """The log-log slope over these n of (log n / n)^power, the form of the theorems."""
    log_n = np.log([n for n in sizes if n >= FEWEST_OBSERVATIONS])
    curve = power * (np.log(log_n) - log_n)
    return float(np.polyfit(log_n, curve, 1)[0])
