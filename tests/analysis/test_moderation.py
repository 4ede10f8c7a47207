"""Moderated variance against the formulas written anew, least squares, and simulated promises."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from harness.analysis.moderation import (
    Pool,
    Prior,
    fit_prior,
    inverse_trigamma,
    most_scattered,
    pair_pool,
    pool_of,
    residual_df,
    residual_square_sum,
    single_pool,
)
from harness.analysis.stats import SeedVariance, Terms


def scores_of(table: np.ndarray) -> dict[int, dict[int, float]]:
    """(methods, seeds) scores as the pools take them."""
    return {name: dict(enumerate(map(float, own))) for name, own in enumerate(table)}


@pytest.mark.parametrize("x", [1e-4, 0.01, 0.5, 1.0, 7.3, 900.0])
def test_trigamma_is_inverted(x: float) -> None:
    assert inverse_trigamma(float(scipy.special.polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_the_prior_solves_smyths_moment_equations() -> None:
    generator = np.random.default_rng(0)
    variances, d = generator.chisquare(2, 40) / 2 * generator.lognormal(0, 1, 40), 2
    prior = fit_prior(list(variances), [d] * 40)
    e = np.log(variances) - scipy.special.digamma(d / 2) + math.log(d / 2)
    wanted = e.var(ddof=1) - scipy.special.polygamma(1, d / 2)
    half = scipy.optimize.brentq(
        lambda x: float(scipy.special.polygamma(1, x) - wanted), 1e-3, 1e3, xtol=1e-12
    )
    assert prior.df == pytest.approx(2 * half, rel=1e-5)
    assert prior.variance == pytest.approx(
        math.exp(e.mean() + scipy.special.digamma(half) - math.log(half)), rel=1e-5
    )


def test_many_variances_give_the_prior_back_that_they_were_drawn_from() -> None:
    generator = np.random.default_rng(1)
    true = 3.0 * 8 / generator.chisquare(8, 20_000)  # d0 = 8, s0² = 3
    drawn = true * generator.chisquare(2, 20_000) / 2
    prior = fit_prior(list(drawn), [2] * 20_000)
    assert prior.df == pytest.approx(8, rel=0.1)
    assert prior.variance == pytest.approx(3, rel=0.05)


def test_equal_variances_have_their_weighted_mean_and_know_it_well() -> None:
    assert fit_prior([1.0, 2.0, 3.0], [2, 2, 4]) == Prior(math.inf, 9 / 4)
    assert fit_prior([0.0, 0.0], [1, 1]) == Prior(math.inf, 0.0)
    assert fit_prior([5.0], [1]) == Prior(math.inf, 5.0)


def test_a_variance_is_drawn_to_the_prior_by_its_degrees_of_freedom_by_hand() -> None:
    pool = Pool((1.0, 9.0), (2, 2), 10.0, Prior(4.0, 3.0))
    # (4·3 + 2·9) / 6 with 6 degrees of freedom; the mean of w = 1/3 has at most 1/(1/18 + 8/90).
    found = pool.moderate(9.0, 2)
    assert (found.variance, found.basis) == (pytest.approx(5.0), "pooled")
    assert found.df == pytest.approx(min(6, 1 / (1 / 18 + 8 / 90)))
    assert pool.borrow() == SeedVariance(3.0, 4.0, "pooled")
    # Of few pairs the mean knows less than d0 + d: w = 1/2 of one with d = 1, D = 2.
    few = Pool((1.0, 9.0), (1, 1), 2.0, Prior(1.0, 3.0)).moderate(9.0, 1)
    assert few.df == pytest.approx(1 / (1 / 4 + 3 / 8))
    assert few.df < 2


def test_variances_that_do_not_differ_are_all_their_mean_with_the_pools_degrees() -> None:
    pool = Pool((1.0, 2.0, 3.0), (2, 2, 2), 4.0, Prior(math.inf, 2.0))
    assert pool.moderate(3.0, 2) == SeedVariance(2.0, 4.0, "pooled")
    assert pool.borrow(0.5) == SeedVariance(2.0, 4.0, "pooled", 0.5)


@pytest.mark.parametrize(("m", "k"), [(2, 2), (3, 2), (4, 5), (6, 3)])
def test_pairs_know_the_residual_of_methods_and_seeds(m: int, k: int) -> None:
    table = np.random.default_rng(2).normal(size=(m, k))
    pool = pair_pool(scores_of(table))
    assert pool is not None
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    assert pool.df == (m - 1) * (k - 1)
    assert np.mean(pool.variances) == pytest.approx(2 * (rest**2).sum() / pool.df)
    assert residual_square_sum(scores_of(table)) == pytest.approx((rest**2).sum())


def test_a_missing_score_takes_one_degree_of_freedom_and_methods_apart_share_none() -> None:
    full = scores_of(np.arange(12.0).reshape(4, 3))
    assert residual_df(full) == 6
    assert residual_df({**full, 3: {0: 9.0, 2: 11.0}}) == 5
    assert residual_df({**full, 3: {7: 1.0}}) == 4  # a method alone with its seed
    apart = {0: {0: 1.0, 1: 2.0}, 1: {0: 1.0, 1: 3.0}, 2: {5: 1.0, 6: 2.0}, 3: {5: 1.0, 6: 4.0}}
    assert residual_df(apart) == 2
    assert residual_df({}) == 0


def test_pairs_of_other_seeds_have_their_own_number_of_them() -> None:
    pool = pair_pool({"a": {0: 1.0, 1: 2.0, 2: 4.0}, "b": {0: 0.0, 1: 0.5}, "c": {2: 1.0}})
    assert pool is not None
    assert (pool.dfs, pool.variances) == ((1,), (pytest.approx(0.5 * 0.5**2),))
    assert pair_pool({"a": {0: 1.0}, "b": {0: 2.0}}) is None


def test_methods_that_are_lucky_together_count_once() -> None:
    generator = np.random.default_rng(4)
    seeds = generator.normal(size=(1, 6))
    alike = single_pool(scores_of(np.repeat(seeds, 5, axis=0) + generator.normal(0, 1e-6, (5, 6))))
    assert alike is not None
    assert alike.df == pytest.approx(5, rel=1e-3)
    # Satterthwaite of the mean of variances, which is (MS of seeds + (m - 1) MS of the rest) / m.
    table = generator.normal(size=(4, 5)) + generator.normal(size=(1, 5))
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    ms_rest, ms_seed = (rest**2).sum() / 12, 4 * table.mean(0).var(ddof=1)
    parts = ms_seed / 4, 3 / 4 * ms_rest
    found = single_pool(scores_of(table))
    assert found is not None
    wanted = sum(parts) ** 2 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 12)
    assert found.df == pytest.approx(max(4, wanted))


def test_a_method_that_scatters_by_chance_is_told_no_more_often_than_it_may() -> None:
    generator = np.random.default_rng(6)
    told = 0
    for _ in range(4000):
        found = most_scattered(scores_of(generator.normal(size=(5, 3))))
        told += found is not None and found[1] < 0.05
    assert 0.035 < told / 4000 < 0.06


def test_a_method_that_scatters_more_than_the_others_is_told() -> None:
    table = np.random.default_rng(6).normal(size=(5, 6))
    table[3] *= 10
    found = most_scattered(
        {name: dict(enumerate(own)) for name, own in zip("abcde", table, strict=True)}
    )
    assert found is not None
    assert (found[0], found[1] < 0.001) == ("d", True)
    assert most_scattered(scores_of(table[:2])) is None
    assert most_scattered(scores_of(np.ones((4, 3)))) is None


def test_the_floor_of_a_pooled_variance_is_known_better_than_the_pool() -> None:
    terms = Terms(0.0, 2, 1000, True, spread=1.0, shared=0.0, rest=4.0, squares=0.0)
    own = terms.estimate(SeedVariance(1.0, 1, "own"))
    pooled = terms.estimate(SeedVariance(1.0, 2, "pooled"))
    assert own.stderr == pooled.stderr == pytest.approx(math.sqrt(4 / 2))
    assert own.df == pytest.approx(1)
    assert pooled.df == pytest.approx(2 * (4 / 1) ** 2)


def test_one_seeds_items_hold_the_rest_already() -> None:
    terms = Terms(0.0, 1, 100, True, spread=None, shared=5.0, rest=0.0, squares=0.0)
    found = terms.estimate(SeedVariance(3.0, 6, "pooled", rest=2.0))
    assert found.stderr == pytest.approx(math.sqrt(5 + 3 - 2))
    assert (found.scope, found.basis) == ("methods", "pooled")
    alone = terms.estimate(None)
    assert (alone.stderr, alone.scope, alone.basis) == (pytest.approx(5**0.5), "models", "none")


def draw_grids(
    m: int, k: int, spread: np.ndarray, item: float, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """(draws, 2) coverage and half width of the 95% intervals of m - 1 methods against the first.

    The model of `stats` itself, Gaussian: seeds of variance `spread`² (any method may have any of
    them), a rest of half a unit per run, and `item` as the variance that items common to the seeds
    give a difference.
    """
    rest = 0.5
    found = []
    for _ in range(draws):
        seeds = generator.normal(size=(m, k)) * generator.permutation(spread)[:, None]
        table = seeds + generator.normal(size=(m, k)) * rest**0.5
        own = generator.normal(size=m) * (item / 2) ** 0.5
        pool = pair_pool(scores_of(table))
        assert pool is not None
        for method in range(1, m):
            difference = table[method] - table[0]
            value = float(difference.mean() + own[method] - own[0])
            variance = float(difference.var(ddof=1))
            terms = Terms(value, k, 10**6, True, variance, item, 2 * rest, 0.0)
            seen = pool.moderate(variance, k - 1) if m > 2 else terms.own
            low, high = terms.estimate(seen).interval or (math.nan, math.nan)
            found.append((low <= 0 <= high, (high - low) / 2))
    return np.array(found)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize(
    ("m", "threefold", "item"),
    [(3, False, 0.0), (3, True, 1.0), (4, False, 1.0), (6, True, 0.0), (20, False, 0.0)],
)
def test_intervals_of_a_grid_with_one_baseline_hold_the_truth_as_often_as_they_say(
    m: int, k: int, threefold: bool, item: float
) -> None:
    generator = np.random.default_rng([m, k, threefold])
    spread = np.geomspace(3**-0.5, 3**0.5, m) if threefold else np.ones(m)
    hits = draw_grids(m, k, spread, item, 3000 // (m - 1), generator)
    # What lies outside is also what would be called different where there is no difference.
    assert 0.93 <= hits[:, 0].mean() <= 0.97


def test_a_grid_of_four_methods_and_three_seeds_halves_the_width() -> None:
    generator = np.random.default_rng(7)
    pooled = draw_grids(4, 3, np.ones(4), 0.0, 400, generator)[:, 1].mean()
    alone = draw_grids(2, 3, np.ones(2), 0.0, 1200, generator)[:, 1].mean()
    assert pooled / alone < 0.62


def test_every_pair_of_a_pool_counts_and_none_twice() -> None:
    table = np.random.default_rng(5).normal(size=(5, 3))
    pool = pair_pool(scores_of(table))
    assert pool is not None
    wanted = [(table[a] - table[b]).var(ddof=1) for a, b in combinations(range(5), 2)]
    assert pool.variances == pytest.approx(wanted)
    assert pool.prior == fit_prior(wanted, [2] * 10)
    assert pool_of(wanted, [2] * 10, 8).moderate(wanted[0], 2) == pool.moderate(wanted[0], 2)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize(("m", "together"), [(3, 0.0), (6, 0.5)])
def test_intervals_against_an_untrained_model_hold_the_truth(
    m: int, k: int, together: float
) -> None:
    # `together`: the share of the seeds' variance that all methods have in common.
    generator, rest, hits = np.random.default_rng([m, k]), 0.5, []
    for _ in range(3000 // m):
        shared = generator.normal(size=(1, k)) * together**0.5
        table = shared + generator.normal(size=(m, k)) * (1 - together + rest) ** 0.5
        pool = single_pool(scores_of(table))
        assert pool is not None
        for own in table:
            variance = float(own.var(ddof=1))
            terms = Terms(float(own.mean()), k, 10**6, True, variance, 0.0, rest, 0.0)
            low, high = terms.estimate(pool.moderate(variance, k - 1)).interval or (1.0, -1.0)
            hits.append(low <= 0 <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize(("others", "k"), [(2, 2), (3, 3), (5, 5)])
def test_one_seed_of_one_method_against_itself_is_called_different_no_more_often_than_it_may(
    others: int, k: int
) -> None:
    generator, rest = np.random.default_rng([others, k]), 0.5
    called = np.zeros(3)
    stated = SeedVariance(2 * (1 + rest), math.inf, "stated")
    for _ in range(2000):
        table = generator.normal(size=(others, k)) * (1 + rest) ** 0.5
        pool = pair_pool(scores_of(table))
        assert pool is not None
        value = float(generator.normal() * (2 * (1 + rest)) ** 0.5)
        # What differs between the two by item is all their own errors on items.
        terms = Terms(value, 1, 10**6, True, None, shared=2 * rest, rest=0.0, squares=0.0)
        for number, seeds in enumerate((pool.borrow(2 * rest), stated, None)):
            p_value = terms.estimate(seeds).p_value
            called[number] += p_value is not None and p_value < 0.05
    pooled, prior, alone = called / 2000
    assert pooled <= 0.07
    assert prior <= 0.07
    assert alone > 0.2  # why a p of items alone is no p of methods
