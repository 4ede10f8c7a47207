"""Student's t, by quantiles and tails; the normal distribution where nothing is uncertain."""

from __future__ import annotations

import math


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t, the normal's for infinite `df`."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))


def t_p_value(statistic: float, df: float) -> float:
    """Two-sided p of Student's t, the normal's for infinite `df`."""
    from scipy.special import ndtr, stdtr

    lower = -abs(statistic)
    return float(2 * (ndtr(lower) if math.isinf(df) else stdtr(df, lower)))


def t_upper_tail(statistic: float, df: float) -> float:
    """Chance that Student's t lies above a statistic, the normal's for infinite `df`."""
    from scipy.special import ndtr, stdtr

    return float(ndtr(-statistic) if math.isinf(df) else stdtr(df, -statistic))
