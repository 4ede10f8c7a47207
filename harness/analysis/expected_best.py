"""How good the best of a few trials is expected to be: what a larger tuning budget would buy.

Dodge et al. (2019, arXiv 1909.03004) ask for it; the unbiased estimate is that of Tang et al.
(2020, arXiv 2004.13705).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import is_missing


def expected_best(values: Sequence[float | None], *, lower_is_better: bool) -> list[float]:
    """Expected best value of n of N trials, drawn without replacement, for n = 1 to N.

    With the values sorted from worst to best, x_(1) to x_(N), it is the sum over i of
    x_(i) C(i-1, n-1) / C(N, n): the mean over all subsets of n trials of the best of each.

    A trial without a value (it failed, or was stopped early) is never the best one; a subset of
    such trials alone has no best, and is left out of the mean.

    Args:
        values: of each trial, NaN or None where it has none.
        lower_is_better: whether the values are losses.

    Returns:
        N numbers; none where no trial has a value.
    """
    import numpy as np

    known = [float(value) for value in values if value is not None and not is_missing(value)]
    if not known:
        return []
    ordered = sorted(known, reverse=lower_is_better)
    total = len(values)
    size = np.arange(1, total + 1)
    # The share of the subsets of each size in which the i-th is the best. From one to the next it
    # changes by a factor of at most 1: nothing grows, whatever N is.
    share = size / total
    best, shares = np.zeros(total), np.zeros(total)
    for rank, value in zip(range(total, 0, -1), reversed(ordered), strict=False):
        best += share * value
        shares += share
        if rank > 1:
            share = share * np.maximum(rank - size, 0) / (rank - 1)
    return [float(one) for one in best / shares]
