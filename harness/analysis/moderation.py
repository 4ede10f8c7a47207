"""Moderated variance: what a grid's comparisons tell each other of the spread over seeds.

Two or three seeds tell a variance badly, but a grid has many comparisons whose variances are alike.
After Smyth (Statistical Applications in Genetics and Molecular Biology 2004; `limma`) each one's
variance over seeds is drawn towards a prior that is fitted to all of them, whose degrees of freedom
it gains. docs/statistics.md has the formulas, and coverage as simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.analysis.stats import SeedVariance

SMALLEST = 1e-5
"""Least share of the median that a variance counts as, since the logarithm of 0 is none (limma)."""
Scores = Mapping[Any, Mapping[int, float]]
"""The scores of methods by seed."""


@dataclass(frozen=True)
class Prior:
    """The distribution of a grid's seed variances: scaled inverse χ² with `df` around
    `variance`."""

    df: float
    """d0; infinite where the comparisons' variances differ no more than chance lets them."""
    variance: float
    """s0²."""


@dataclass(frozen=True)
class Pool:
    """The variances over seeds of comparisons of one kind, and how much they know together."""

    variances: tuple[float, ...]
    dfs: tuple[int, ...]
    df: float
    """Degrees of freedom of all of them: less than their sum, as comparisons share methods."""
    prior: Prior

    def moderate(self, variance: float, df: int) -> SeedVariance:
        """A comparison's own variance with what the others know.

        Its degrees of freedom are d0 + d, but no more than its mean of the two can have: with w the
        share of its own variance and D the pool's degrees of freedom, 1 / (w²/d + (1 - w²)/D).
        """
        if math.isinf(self.prior.df):
            return SeedVariance(self.prior.variance, max(df, self.df), "pooled")
        total = self.prior.df + df
        own = df / total
        mean = own * variance + (1 - own) * self.prior.variance
        most = 1 / (own**2 / df + (1 - own**2) / max(df, self.df))
        return SeedVariance(mean, min(total, most), "pooled")

    def borrow(self, rest: float = 0.0) -> SeedVariance:
        """What the others know of a comparison that has one seed.

        `rest` is how much of their variance is the runs' own errors on items.
        """
        df = min(self.prior.df, self.df)
        return SeedVariance(self.prior.variance, df, "pooled", rest)


def fit_prior(variances: Sequence[float], dfs: Sequence[int]) -> Prior:
    """Fits the prior by the moments of the logarithms (Smyth 2004, section 6.2).

    With e = log s² - ψ(d/2) + log(d/2), of variance var(e): d0 solves ψ'(d0/2) = var(e) - ψ'(d/2)
    and s0² = exp(mean e + ψ(d0/2) - log(d0/2)). Where var(e) is no more than ψ'(d/2) the variances
    do not differ, d0 is infinite and s0² their mean, weighted by d, as in limma since 2017 (exp of
    mean e would be less exact). One variance alone is itself.
    """
    import numpy as np
    from scipy.special import polygamma, psi

    known, half = np.asarray(variances, dtype=float), np.asarray(dfs, dtype=float) / 2
    mean = float(np.average(known, weights=half))
    if len(known) < 2 or mean == 0:
        return Prior(math.inf, mean)
    middle = float(np.median(known)) or mean
    e = np.log(np.maximum(known, SMALLEST * middle)) - psi(half) + np.log(half)
    excess = float(e.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return Prior(math.inf, mean)
    half_prior = inverse_trigamma(excess)
    centre = float(e.mean() + psi(half_prior)) - math.log(half_prior)
    return Prior(2 * half_prior, math.exp(centre))


def inverse_trigamma(value: float) -> float:
    """The x > 0 at which ψ'(x) is a value > 0: Newton's method on 1/ψ' (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def pair_pool(scores: Scores) -> Pool | None:
    """The variances of all paired differences of methods; None without a pair of common seeds.

    Pairs share methods, and so tell less than their number: the mean of their variances is twice
    the residual mean square of the methods × seeds table, whose degrees of freedom, (m-1)(k-1) of
    m methods with the same k seeds, are what all of them know together.
    """
    variances, dfs = [], []
    for first, second in combinations(scores.values(), 2):
        common = [seed for seed in first if seed in second]
        if len(common) > 1:
            variances.append(_variance([first[seed] - second[seed] for seed in common]))
            dfs.append(len(common) - 1)
    return pool_of(variances, dfs, residual_df(scores)) if variances else None


def single_pool(scores: Scores) -> Pool | None:
    """The variances of methods' own scores, as against the untrained base model, which has none.

    None without a method of several seeds. Methods that are trained on the same rows in the same
    order may be lucky together, so that their variances repeat each other: with r the correlation
    that the table shows, their sum of degrees of freedom D counts as D² / (D + r² Σ t), where t of
    two methods is the trace of the product of their centring matrices over their common seeds. Of
    m methods with the same k seeds it is m(k-1) / (1 + (m-1) r²).
    """
    known = {name: own for name, own in scores.items() if len(own) > 1}
    if not known:
        return None
    variances = [_variance(list(own.values())) for own in known.values()]
    dfs = [len(own) - 1 for own in known.values()]
    total, repeated = sum(dfs), 0.0
    mean = sum(d * v for d, v in zip(dfs, variances, strict=True)) / total
    own_df = residual_df(known)
    if own_df > 0 and mean > 0:
        correlation = 1 - residual_square_sum(known) / own_df / mean
        repeats = sum(_repeated(*pair) for pair in combinations(known.values(), 2))
        repeated = 2 * correlation**2 * repeats
    return pool_of(variances, dfs, max(max(dfs), total**2 / (total + repeated)))


def most_scattered(scores: Scores) -> tuple[Any, float] | None:
    """The method that scatters most over the seeds, and the p that one does by chance.

    By the residuals of the methods × seeds table, over the seeds that all methods of several seeds
    have: of m methods and k seeds, m/(m-1) of one method's share of their sum of squares is Beta
    ((k-1)/2, (m-2)(k-1)/2) where all scatter alike. The p is Bonferroni's over the methods; None
    for fewer than three methods, two common seeds, or without any scatter.
    """
    import numpy as np
    from scipy.special import betainc

    known = {name: own for name, own in scores.items() if len(own) > 1}
    seeds = sorted(set.intersection(*map(set, known.values()))) if known else []
    num_methods, num_seeds = len(known), len(seeds)
    if num_methods < 3 or num_seeds < 2:
        return None
    table = np.array([[own[seed] for seed in seeds] for own in known.values()])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    squares = (rest**2).sum(axis=1)
    if squares.sum() <= 1e-18:
        return None
    most = int(squares.argmax())
    share = min(1.0, float(squares[most] / squares.sum()) * num_methods / (num_methods - 1))
    shape = (num_seeds - 1) / 2, (num_methods - 2) * (num_seeds - 1) / 2
    p_value = num_methods * (1 - float(betainc(*shape, share)))
    return list(known)[most], min(1.0, p_value)


def exceeds(own: SeedVariance | None, stated: SeedVariance) -> bool:
    """Whether own seeds scatter more than a stated variance lets them (χ² test at 5%)."""
    from scipy.special import chdtrc

    if own is None:
        return False
    return float(chdtrc(own.df, own.df * own.variance / stated.variance)) < 0.05


def pool_of(variances: Sequence[float], dfs: Sequence[int], df: float) -> Pool:
    """The pool of some variances, which know so many degrees of freedom together."""
    return Pool(tuple(variances), tuple(dfs), df, fit_prior(variances, dfs))


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _repeated(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """The trace of the product of two centring matrices over their common rows."""
    common, one, other = len(first.keys() & second.keys()), len(first), len(second)
    return common * (1 - 1 / one - 1 / other) + common**2 / (one * other)


def residual_df(scores: Scores) -> int:
    """Degrees of freedom that the scores have left beside an effect of each method and seed.

    Of m methods with the same k seeds (m-1)(k-1). In general: the number of scores, less that of
    methods and of seeds, plus that of the groups of methods that no common seed joins.
    """
    groups: list[set[int]] = []
    for own in scores.values():
        joined = set(own).union(*(group for group in groups if group & own.keys()))
        groups = [group for group in groups if not group & own.keys()] + [joined]
    seeds = set[int]().union(*groups)
    methods = sum(bool(own) for own in scores.values())
    groups = [group for group in groups if group]
    return sum(map(len, scores.values())) - methods - len(seeds) + len(groups)


def residual_square_sum(scores: Scores) -> float:
    """Sum of squares that is left beside an effect of each method and seed (least squares)."""
    import numpy as np

    seeds = sorted(set[int]().union(*scores.values()))
    rows, values = [], []
    for number, own in enumerate(scores.values()):
        for seed, value in own.items():
            row = np.zeros(len(scores) + len(seeds))
            row[number] = row[len(scores) + seeds.index(seed)] = 1
            rows.append(row)
            values.append(value)
    design, wanted = np.stack(rows), np.array(values)
    fitted = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    return float(((wanted - fitted) ** 2).sum())
