"""What can be detected, against the formula, statsmodels' one sample, and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness.analysis.moderation import pair_pool
from harness.analysis.power import (
    LEVEL,
    POWER,
    Spread,
    detectable,
    items_needed,
    reach_of,
    seeds_needed,
    spread_of,
    stated_spread,
)
from harness.analysis.stats import Components, Terms

SPREAD = Spread(seed=2 * 0.012**2, item_error=0.25 / 1319, rest_error=0.1 / 1319, num_items=1319)


def test_by_the_formula() -> None:
    z = scipy.stats.norm.ppf
    for k in (1, 2, 5):
        stderr = math.sqrt((2 * 0.012**2 + 0.1 / 1319) / k + 0.25 / 1319)
        assert SPREAD.variance(k) == pytest.approx(stderr**2)
        spread = Spread(SPREAD.seed, SPREAD.item_error, SPREAD.rest_error, 10**9)
        assert detectable(spread, k) == pytest.approx((z(0.975) + z(0.8)) * stderr)


def test_degrees_of_freedom_are_those_of_the_intervals() -> None:
    # Satterthwaite over the seeds' part, which has the prior's and k - 1, and the items'.
    for k, prior in ((2, 0.0), (3, 7.5), (8, 0.0)):
        spread = Spread(SPREAD.seed, SPREAD.item_error, SPREAD.rest_error, 1319, prior)
        a, b = (SPREAD.seed + SPREAD.rest_error) / k, SPREAD.item_error
        wanted = (a + b) ** 2 / (a**2 / (prior + k - 1) + b**2 / 1318)
        assert spread.df(k) == pytest.approx(wanted)


@pytest.mark.parametrize(("k", "prior"), [(3, 0.0), (3, 20.0), (6, 0.0), (2, 30.0)])
def test_the_detectable_difference_is_found_in_about_80_percent(k: int, prior: float) -> None:
    # Simulated under the model: k seeds × n items, and a prior variance of `prior` degrees.
    rng = np.random.default_rng(7)
    n, seed, item, draws = 400, 0.02**2, 0.09, 4000
    spread = Spread(seed, item / n, 0.0, n, prior)
    true = detectable(spread, k)
    runs = rng.normal(0, math.sqrt(seed), (draws, k))
    means = true + runs.mean(axis=1) + rng.normal(0, math.sqrt(item / n), draws)
    own = runs.var(axis=1, ddof=1)
    known = seed * rng.chisquare(prior, draws) / prior if prior else np.zeros(draws)
    pooled = (prior * known + (k - 1) * own) / (prior + k - 1)
    items = item * rng.chisquare(n - 1, draws) / (n - 1)
    a, b = pooled / k, items / n
    df = (a + b) ** 2 / (a**2 / (prior + k - 1) + b**2 / (n - 1))
    found = means / np.sqrt(a + b) > scipy.stats.t.ppf(0.975, df)
    assert found.mean() == pytest.approx(POWER, abs=0.03)


def test_the_fewest_seeds_suffice_and_one_less_does_not() -> None:
    for difference in (0.031, 0.035, 0.04, 0.05, 0.1):
        for prior in (0.0, 3.0, math.inf):
            spread = Spread(0.03**2, 0.01**2, 0.0, 5000, prior)
            found = seeds_needed(spread, difference)
            assert found is not None
            assert detectable(spread, found) <= difference
            assert found == 1 or detectable(spread, found - 1) > difference


def test_where_the_items_hide_it_no_seeds_do_and_items_are_told() -> None:
    spread = Spread(0.0001, 0.25 / 500, 0.0, 500)
    assert seeds_needed(spread, 0.01) is None
    needed = items_needed(spread, 0.01)
    assert needed > 500
    assert seeds_needed(Spread(0.0, 0.25 / (1.01 * needed), 0.0, needed), 0.01) == 1
    assert seeds_needed(Spread(0.0, 0.25 / (0.97 * needed), 0.0, needed), 0.01) is None


def test_more_seeds_and_more_items_detect_less() -> None:
    by_seeds = [detectable(SPREAD, k) for k in range(1, 12)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    by_items = [detectable(Spread(0.0, 0.2 / n, 0.0, n), 1) for n in (100, 1000, 10000)]
    assert by_items == sorted(by_items, reverse=True)


def test_one_seed_without_a_prior_detects_nothing() -> None:
    spread = Spread(0.02**2, 0.0001, 0.0, 500, prior_df=0.0)
    assert detectable(spread, 1) == math.inf
    reach = reach_of(spread, 1, 0.02)
    assert not reach.reaches_margin
    assert reach.margin is not None
    assert reach.margin.seeds is None or reach.margin.seeds > 1


def test_a_stricter_level_takes_more() -> None:
    assert detectable(SPREAD, 3, 0.05 / 4) > detectable(SPREAD, 3)


def test_components_of_one_number_of_seeds_serve_for_another() -> None:
    found = Components(seed=0.0003, item=0.2, rest=0.1, num_items=400, df=9.0, basis="pooled")
    spread = spread_of(found, num_seeds=3)
    for k in (1, 3, 10):
        assert spread.variance(k) == pytest.approx(0.0003 / k + 0.2 / 400 + 0.1 / (k * 400))
    assert spread.prior_df == 7
    own = spread_of(Components(0.0003, 0.2, 0.1, 400, 2.0, "own"), num_seeds=3)
    assert own.prior_df == 0


def test_a_stated_spread_is_that_of_two_runs_and_of_unpaired_answers() -> None:
    spread = stated_spread(0.012, ((0.25, 1000), (0.75, 4000)))
    assert spread.seed == pytest.approx(2 * 0.012**2)
    # The variance of a share of right answers at 50% is 1/(4n); of two models twice that.
    wanted = 0.25**2 * 2 * 0.25 / 1000 + 0.75**2 * 2 * 0.25 / 4000
    assert spread.item_error == pytest.approx(wanted)
    assert spread.num_items == 5000


@pytest.mark.parametrize("df", [999.0, 1000.0, 28448.0, 1e7, math.inf])
def test_quantiles_are_those_of_scipy(df: float) -> None:
    spread = Spread(1.0, 0.0, 0.0, 0, df)
    for level in (0.05, 0.0125, 0.001):
        wanted = scipy.stats.t.ppf(1 - level / 2, df) + scipy.stats.t.ppf(0.8, df)
        assert detectable(spread, 1, level) == pytest.approx(wanted, rel=1e-9)


def test_the_published_suite_by_hand() -> None:
    # 1,319 items, re-runs of SD 1.19: one seed a method, as huggingface/peft's table has them.
    spread = stated_spread(0.0119, ((1.0, 1319),))
    z = 1.959964 + 0.841621
    assert detectable(spread, 1) == pytest.approx(
        z * math.sqrt(2 * 0.0119**2 + 0.5 / 1319), rel=2e-3
    )


@pytest.mark.parametrize(("m", "k"), [(3, 3), (3, 5), (6, 3)])
def test_what_is_planned_is_found_in_80_percent_by_pooled_intervals(m: int, k: int) -> None:
    spread, generator = stated_spread(0.012, ((1.0, 5000),), m), np.random.default_rng([m, k])
    size, found = detectable(spread, k), 0
    for _ in range(2000):
        table = generator.normal(0, 0.012, (m, k))
        own = generator.normal(0, math.sqrt(spread.item_error))
        pool = pair_pool({name: dict(enumerate(map(float, one))) for name, one in enumerate(table)})
        assert pool is not None
        difference = table[1] - table[0] + own + size
        variance = float(difference.var(ddof=1))
        item = spread.item_error
        terms = Terms(float(difference.mean()), k, 5000, True, variance, item, 0.0, item**2 / 4999)
        p_value = terms.estimate(pool.moderate(variance, k - 1)).p_value
        found += p_value is not None and p_value < LEVEL
    assert 0.76 < found / 2000 < 0.84
