"""The expected best of n of N trials is the mean over all subsets, whatever N is."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest

from harness.analysis.expected_best import expected_best


def best_of_all_subsets(values: list[float], size: int, best) -> float:
    """Returns the mean of the best over every subset; one without a value has no best."""
    found = [[one for one in part if one == one] for part in combinations(values, size)]
    return fmean(best(part) for part in found if part)


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_it_is_the_mean_over_all_subsets(number: int, lower_is_better: bool) -> None:
    values = np.random.default_rng(number).normal(size=number).round(1).tolist()  # with ties
    best = min if lower_is_better else max
    found = expected_best(values, lower_is_better=lower_is_better)
    assert found == pytest.approx(
        [best_of_all_subsets(values, size, best) for size in range(1, number + 1)], abs=1e-12
    )


def test_a_trial_without_a_value_is_never_the_best() -> None:
    values = [2.0, math.nan, 1.0, math.nan, 3.0, 2.5]
    found = expected_best(values, lower_is_better=True)
    assert found == pytest.approx([best_of_all_subsets(values, n, min) for n in range(1, 7)])
    assert expected_best([None, *values[1:]], lower_is_better=True)[-1] == 1.0


def test_without_any_value_there_is_none() -> None:
    assert expected_best([], lower_is_better=True) == []
    assert expected_best([None, math.nan], lower_is_better=False) == []


def test_losses_are_the_mirror_of_scores() -> None:
    values = np.random.default_rng(0).normal(size=20)
    losses = expected_best(list(values), lower_is_better=True)
    scores = expected_best(list(-values), lower_is_better=False)
    assert losses == pytest.approx([-one for one in scores])


def test_a_thousand_trials_are_no_trouble() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    found = expected_best(list(values), lower_is_better=False)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[-1]) == pytest.approx((values.mean(), values.max()))
    # The exact sum in whole numbers.
    ordered, size = sorted(values), 400
    total = math.comb(1000, size)
    exact = sum(x * (math.comb(i, size - 1) / total) for i, x in enumerate(ordered))
    assert found[size - 1] == pytest.approx(exact, rel=1e-12)
