"""Slopes of exact powers, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from harness.theory.slopes import Slope, fit_slope, logarithmic_slope, verdict

SIZES = (100, 1000, 10_000, 100_000)


def test_a_power_of_n_has_its_exponent_as_slope() -> None:
    errors = [np.full(5, 3 * n**-0.25) for n in SIZES]
    slope = fit_slope(SIZES, errors, np.random.default_rng(0))
    assert (slope.value, slope.low, slope.high) == pytest.approx((-0.25, -0.25, -0.25))


def test_small_n_and_missing_values_are_left_out() -> None:
    errors = [np.full(5, n**-0.5) for n in SIZES]
    errors[0] = np.full(5, 1e9)
    errors[2] = np.array([np.nan, *errors[2][1:]])
    slope = fit_slope(SIZES, errors, np.random.default_rng(0))
    assert slope.value == pytest.approx(-0.5)
    assert fit_slope(SIZES, errors, np.random.default_rng(0), fewest=50_000) is None
    assert fit_slope(SIZES, [np.full(3, np.nan)] * 4, np.random.default_rng(0)) is None


def test_intervals_hold_the_exponent_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        errors = [n**-0.5 * random.gamma(4, 1, 40) for n in SIZES]
        held += fit_slope(SIZES, errors, random).covers(-0.5)
    assert 178 <= held <= 199


def test_an_interval_covers_its_ends_and_nothing_beyond() -> None:
    slope = Slope(-0.3, -0.35, -0.26)
    assert slope.covers(-0.26)
    assert not slope.covers(-0.25)


def test_the_theorems_logarithm_flattens_the_slope() -> None:
    sizes = [10**k for k in range(3, 7)]
    assert logarithmic_slope(0.5, sizes) == pytest.approx(-0.45, abs=0.005)
    assert logarithmic_slope(0.25, sizes) == pytest.approx(-0.225, abs=0.003)


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        (Slope(-0.5, -0.52, -0.48), "holds it"),
        (Slope(-0.55, -0.57, -0.51), "steeper"),
        (Slope(-0.4, -0.45, -0.35), "flatter"),
        (None, "–"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(slope, expected) -> None:
    assert verdict(slope, -0.5) == expected
