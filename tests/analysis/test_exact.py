"""Intervals and tests of few items against independent references, and their coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from harness.analysis.exact import PairedShares, Share, are_few, mcnemar_exact, sign_flip_p


@pytest.mark.parametrize(("right", "number"), [(0, 8), (8, 8), (3, 10), (140, 299)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_shares_interval_is_wilsons(right: int, number: int, level: float) -> None:
    found = scipy.stats.binomtest(right, number).proportion_ci(level, method="wilson")
    assert Share(right, number).interval(level) == pytest.approx((found.low, found.high), abs=1e-12)


def score_statistic(wins: int, losses: int, number: int, difference: float) -> float:
    """The score statistic of a difference, with the nuisance share found by numerical maximum
    likelihood."""

    def cost(second: float) -> float:
        first = second + difference
        counts, shares = (wins, losses, number - wins - losses), (first, second, 1 - first - second)
        if any(
            share < 0 or (share == 0 and count) for count, share in zip(counts, shares, strict=True)
        ):
            return np.inf
        return -sum(n * np.log(share) for n, share in zip(counts, shares, strict=True) if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    found = scipy.optimize.minimize_scalar(
        cost, bounds=(low + 1e-12, high - 1e-12), method="bounded", options={"xatol": 1e-13}
    )
    variance = number * (2 * found.x + difference * (1 - difference))
    return (wins - losses - number * difference) / variance**0.5


@pytest.mark.parametrize(("wins", "losses", "number"), [(9, 2, 30), (3, 4, 50), (20, 31, 200)])
def test_the_ends_of_a_paired_interval_are_where_the_score_test_is_just_significant(
    wins: int, losses: int, number: int
) -> None:
    low, high = PairedShares(wins, losses, number).interval(0.95)
    z = scipy.stats.norm.ppf(0.975)
    assert score_statistic(wins, losses, number, low) == pytest.approx(z, abs=1e-4)
    assert score_statistic(wins, losses, number, high) == pytest.approx(-z, abs=1e-4)


def test_a_paired_interval_turns_its_sign_with_the_sides() -> None:
    low, high = PairedShares(7, 2, 40).interval(0.95)
    assert PairedShares(2, 7, 40).interval(0.95) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("counts", [(0, 0, 5), (5, 0, 5), (0, 5, 5)])
def test_items_that_all_agree_have_an_interval_within_bounds(counts: tuple[int, int, int]) -> None:
    low, high = PairedShares(*counts).interval(0.95)
    value = (counts[0] - counts[1]) / counts[2]
    assert -1 <= low <= value <= high <= 1
    assert low < high


def test_few_items_are_covered_where_the_normal_interval_falls_short() -> None:
    # 30 items, 90% right: the normal interval is the one that is too short (arXiv 2503.01747).
    number, chance = 30, 0.95
    weights = scipy.stats.binom(number, chance).pmf(np.arange(number + 1))
    exact = normal = 0.0
    for right, weight in enumerate(weights):
        low, high = Share(right, number).interval(0.95)
        share = right / number
        reach = 1.96 * (share * (1 - share) / (number - 1)) ** 0.5
        exact += weight * (low <= chance <= high)
        normal += weight * (share - reach <= chance <= share + reach)
    assert normal < 0.85
    assert exact > 0.93


def test_paired_intervals_of_few_items_hold_the_truth() -> None:
    number, first, second = 25, 0.3, 0.06
    hits = 0.0
    for wins, losses in product(range(number + 1), repeat=2):
        if wins + losses <= number:
            chance = scipy.stats.multinomial(number, [first, second, 1 - first - second]).pmf(
                [wins, losses, number - wins - losses]
            )
            if chance > 1e-7:
                low, high = PairedShares(wins, losses, number).interval(0.95)
                hits += chance * (low <= first - second <= high)
    assert 0.93 <= hits <= 0.98


def test_all_sign_flips_by_hand() -> None:
    # Sums of ±1 ±2 ±3: eight; as far from 0 as 1 + 2 + 3 = 6 are two.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, 0.0])) == pytest.approx(2 / 8)
    assert sign_flip_p(np.zeros(4)) == 1.0


def test_sign_flips_of_right_or_wrong_are_mcnemars_test() -> None:
    first = np.array([1.0] * 9 + [0.0] * 3 + [1.0] * 5)
    second = np.array([0.0] * 9 + [1.0] * 3 + [1.0] * 5)
    assert sign_flip_p(first - second) == pytest.approx(mcnemar_exact(first, second))


def test_drawn_sign_flips_are_near_the_t_test_and_always_the_same() -> None:
    values = np.random.default_rng(3).normal(0.25, 1, 100)
    found = sign_flip_p(values)
    assert found == sign_flip_p(values)
    assert found == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, abs=0.01)


@pytest.mark.parametrize(
    ("counts", "few"),
    [
        ((299, 150, 149), True),
        ((300, 150, 150), False),
        ((1000, 991, 9), True),
        ((1000, 10), False),
    ],
)
def test_few_are_a_few_hundred_items_or_a_few_answers_of_a_kind(counts, few) -> None:
    assert are_few(*counts) == few


def test_a_thousand_items_that_all_agree_leave_an_interval() -> None:
    low, high = PairedShares(0, 0, 1000).interval(0.95)
    assert high == pytest.approx(3.8415 / (1000 + 3.8415), rel=1e-3)
    assert low == pytest.approx(-high)
