"""The estimates against hand calculation, scipy, a bootstrap, and a simulation of their promise."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import scipy.stats

from harness.analysis.exact import mcnemar_exact
from harness.analysis.stats import (
    Estimate,
    Sample,
    binomial_stderr,
    combine,
    holm,
    mean_squares,
)
from harness.analysis.student import t_p_value, t_quantile, t_upper_tail


def sample_of(rows: list[list[float]] | np.ndarray, weight: float = 1.0) -> Sample:
    items = np.array(rows, dtype=float)
    return Sample(items.mean(axis=1), items, None, items.shape[1], weight)


def test_one_seed_gives_the_standard_error_of_the_mean_over_items() -> None:
    answers = [1.0, 0.0, 1.0, 1.0, 0.0]
    estimate = combine([sample_of([answers])])
    assert estimate.value == pytest.approx(0.6)
    assert estimate.stderr == pytest.approx(statistics.stdev(answers) / math.sqrt(5))
    assert estimate.df == pytest.approx(4)


def test_two_seeds_give_seed_variance_plus_item_covariance() -> None:
    # Of two seeds the item component is the covariance of their answers over items, by definition.
    rows = np.array([[1, 0, 1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 1, 0, 0]], dtype=float)
    estimate = combine([sample_of(rows)])
    seed_variance = statistics.variance(rows.mean(axis=1)) / 2
    covariance = np.cov(rows)[0, 1] / 8
    assert estimate.stderr == pytest.approx(math.sqrt(seed_variance + covariance))


def test_mean_squares_by_hand() -> None:
    # Means: items 1, 1/2, 0; seeds 2/3, 1/3; all 1/2. Rest: ±1/6, ±1/3, ±1/6 in both rows.
    ms_item, ms_rest = mean_squares(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert ms_item == pytest.approx(2 * (1 / 4 + 0 + 1 / 4) / 2)
    assert ms_rest == pytest.approx(2 * (1 / 36 + 1 / 9 + 1 / 36) / 2)


def test_more_seeds_do_not_shrink_the_error_of_shared_items() -> None:
    answers = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    one = combine([sample_of([answers])])
    five = combine([sample_of([answers] * 5)])
    assert five.stderr == pytest.approx(one.stderr)


def test_seeds_that_agree_by_luck_do_not_shrink_the_error_below_that_of_their_answers() -> None:
    # Equal scores, yet different answers: S² is 0 and the floor stands in its place.
    rows = [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    _, ms_rest = mean_squares(np.array(rows))
    assert combine([sample_of(rows)]).stderr == pytest.approx(math.sqrt(ms_rest / 8))


def test_an_average_adds_the_benchmarks_errors_with_their_weights() -> None:
    first, second = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0]
    estimate = combine([sample_of([first], 0.5), sample_of([second], 0.5)])
    errors = [statistics.stdev(row) / math.sqrt(len(row)) for row in (first, second)]
    assert estimate.value == pytest.approx((0.75 + 1 / 3) / 2)
    assert estimate.stderr == pytest.approx(math.hypot(*errors) / 2)
    assert estimate.num_items == 7


def test_a_seed_that_is_good_at_everything_counts_in_the_average_as_one_seed() -> None:
    # Every item of a seed is the same: the whole error is between seeds and common to both parts.
    rows = [[0.2] * 50, [0.5] * 50, [0.8] * 50]
    average = combine([sample_of(rows, 0.5), sample_of(rows, 0.5)])
    assert average.stderr == pytest.approx(0.3 / math.sqrt(3))
    assert average.df == pytest.approx(2)


def test_the_error_of_one_seed_is_that_of_a_bootstrap_over_items() -> None:
    generator = np.random.default_rng(0)
    first = (generator.random(300) < 0.6).astype(float)
    second = np.where(generator.random(300) < 0.8, first, 1 - first)
    difference = first - second
    draws = generator.integers(0, 300, size=(4000, 300))
    bootstrap = difference[draws].mean(axis=1).std()
    assert combine([sample_of(difference[None])]).stderr == pytest.approx(bootstrap, rel=0.05)


@pytest.mark.parametrize(("seed_sd", "num_seeds"), [(0.0, 3), (0.03, 3), (0.05, 2), (0.0, 1)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    seed_sd: float, num_seeds: int
) -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(800):
        chances = (
            0.5 + generator.normal(0, 0.2, (1, 150)) + generator.normal(0, seed_sd, (num_seeds, 1))
        )
        answers = (generator.random((num_seeds, 150)) < chances).astype(float)
        interval = combine([sample_of(answers)]).interval
        assert interval is not None
        hits += interval[0] <= 0.5 <= interval[1]
    # Two seeds have one degree of freedom: an honest interval is then wider than it need be.
    assert 0.92 <= hits / 800 <= (0.97 if num_seeds == 1 else 1.0)


def test_without_items_the_error_is_an_upper_bound() -> None:
    rows = np.array([[1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 0, 1]], dtype=float)
    stderrs = rows.std(axis=1, ddof=1) / math.sqrt(6)
    bound = combine([Sample(rows.mean(axis=1), None, stderrs, 6)])
    exact = combine([sample_of(rows)])
    assert bound.stderr == pytest.approx(
        math.sqrt(statistics.variance(rows.mean(axis=1)) / 2 + (stderrs**2).mean())
    )
    assert exact.stderr is not None
    assert bound.stderr is not None
    assert bound.stderr >= exact.stderr
    assert not bound.from_items


def test_an_unknown_error_stays_unknown() -> None:
    estimate = combine([Sample(np.array([0.5]), None, None, 10)])
    assert (estimate.stderr, estimate.interval, estimate.p_value) == (None, None, None)


def test_an_error_of_zero_gives_no_p_for_a_difference() -> None:
    estimate = combine([sample_of([[1.0, 1.0, 1.0]])])
    assert estimate.stderr == 0
    assert estimate.p_value is None


def test_interval_and_p_are_students() -> None:
    estimate = Estimate(0.1, 0.04, 7.5, 3, 100, True)
    low, high = scipy.stats.t(df=7.5, loc=0.1, scale=0.04).interval(0.95)
    assert estimate.interval == pytest.approx((low, high))
    assert estimate.p_value == pytest.approx(2 * scipy.stats.t(df=7.5).sf(0.1 / 0.04))


@pytest.mark.parametrize("df", [1.5, 7.5, math.inf])
def test_one_sided_ps_are_the_two_one_sided_tests_of_a_margin(df: float) -> None:
    estimate = Estimate(0.01, 0.004, df, 3, 100, True)
    student = scipy.stats.norm() if math.isinf(df) else scipy.stats.t(df=df)
    assert estimate.p_above(-0.02) == pytest.approx(student.sf((0.01 + 0.02) / 0.004))
    assert estimate.p_below(0.02) == pytest.approx(student.cdf((0.01 - 0.02) / 0.004))
    assert estimate.p_above(0) == pytest.approx(estimate.p_value / 2)
    # Both are below 5% where the 90% interval lies within the margin, and only there.
    for margin in (0.012, 0.02, 0.05):
        low, high = estimate.interval_at(0.9)
        both = max(estimate.p_above(-margin), estimate.p_below(margin)) < 0.05
        assert both == (-margin < low and high < margin)


def test_an_unknown_error_has_no_one_sided_p() -> None:
    for stderr in (None, 0.0):
        estimate = Estimate(0.01, stderr, 3, 3, 100, True)
        assert (estimate.p_above(0), estimate.p_below(0)) == (None, None)


def test_infinite_degrees_of_freedom_are_normal() -> None:
    assert t_quantile(0.975, math.inf) == pytest.approx(scipy.stats.norm.ppf(0.975))
    assert t_upper_tail(1.7, math.inf) == pytest.approx(scipy.stats.norm.sf(1.7))
    assert t_p_value(1.7, math.inf) == pytest.approx(2 * scipy.stats.norm.sf(1.7))


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (1, 0), (5, 1), (3, 3), (40, 61), (2500, 2400)]
)
def test_mcnemar_is_the_binomial_test_of_discordant_items(wins: int, losses: int) -> None:
    first = np.array([1] * wins + [0] * losses + [1] * 7 + [0] * 4)
    second = np.array([0] * wins + [1] * losses + [1] * 7 + [0] * 4)
    expected = 1.0
    if wins + losses:
        expected = scipy.stats.binomtest(wins, wins + losses).pvalue
    assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand() -> None:
    adjusted = holm([0.01, None, 0.04, 0.03, 0.005])
    assert adjusted == [pytest.approx(p) if p else None for p in (0.03, None, 0.06, 0.06, 0.02)]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_binomial_stderr_of_the_published_sizes() -> None:
    assert 100 * binomial_stderr(0.6229, 2376) == pytest.approx(0.994, abs=1e-3)
