"""Counts and means are all that least squares sees of n observations."""

from __future__ import annotations

import numpy as np
import pytest

from harness.theory.fitting import Problem, draw_starts, fit
from harness.theory.regression import Regression, make_design
from harness.theory.sampling import (
    Sample,
    draw_continuous,
    draw_on_grid,
    grid_inputs,
    observe,
)
from harness.theory.world import TRUTH, WORLD, Box

GRID = make_design(WORLD.pretrained, grid_inputs(WORLD))
JOINT = Regression("joint", WORLD, 3)
THETA = JOINT.pack(TRUTH.prompts, TRUTH.biases, 0.0)[None]
F = JOINT.evaluate(THETA, GRID).f[0]


def raw_data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of each observation's input in the grid, and its y, (n, 2)."""
    random = np.random.default_rng(3)
    index = random.integers(F.shape[1], size=n)
    return index, F.T[index] + WORLD.noise * random.standard_normal((n, 2))


def by_input(index: np.ndarray, y: np.ndarray) -> Sample:
    """Returns raw observations as counts and means."""
    counts = np.bincount(index, minlength=F.shape[1]).astype(float)
    sums = np.stack([np.bincount(index, weights=each, minlength=F.shape[1]) for each in y.T])
    return Sample(GRID, (sums / np.maximum(counts, 1))[None], counts[None] / 0.1**2, len(index))


@pytest.mark.parametrize("n", [50, 5000])
def test_means_give_the_sum_of_squares_of_the_raw_data(n) -> None:
    index, y = raw_data(n)
    sample = by_input(index, y)
    problem = Problem.of(JOINT, sample, np.zeros(2, dtype=int), 0.0)
    thetas = np.random.default_rng(1).normal(0, 0.5, (2, JOINT.num_parameters))
    by_means = problem.chi2(thetas, JOINT.evaluate(thetas, GRID).f) * WORLD.noise**2
    for theta, found in zip(thetas, by_means, strict=True):
        f = JOINT.evaluate(theta[None], GRID).f[0].T[index]
        within = ((y - sample.mean[0].T[index]) ** 2).sum()
        assert found + within == pytest.approx(((y - f) ** 2).sum(), rel=1e-10)


def test_means_give_the_estimate_of_the_raw_data() -> None:
    index, y = raw_data(800)
    x = np.ascontiguousarray(GRID.x[:, :, index])
    weight = np.full((1, len(index)), WORLD.noise**-2)
    raw = Sample(make_design(WORLD.pretrained, x), y.T[None], weight, len(index))
    starts = draw_starts(JOINT, TRUTH, 1, 2, np.random.default_rng(0))
    first, second = (fit(JOINT, sample, starts, Box()) for sample in (by_input(index, y), raw))
    assert np.abs(first.theta - second.theta).max() < 1e-8


def test_grid_draws_have_the_mean_and_spread_of_n_observations() -> None:
    n, random = 3600, np.random.default_rng(2)
    sample = draw_on_grid(WORLD, F, GRID, n, 400, random)
    counts = sample.weight * WORLD.noise**2
    assert (counts.sum(axis=1) == n).all()
    assert abs(counts.var() / (n / 144 * (1 - 1 / 144)) - 1) < 0.05
    scaled = (sample.mean - F) * np.sqrt(sample.weight)[:, None]
    assert abs(scaled[np.broadcast_to(counts[:, None] > 0, scaled.shape)].var() - 1) < 0.02
    assert abs(scaled.mean()) < 0.01


def test_inputs_that_were_not_drawn_weigh_nothing() -> None:
    sample = draw_on_grid(WORLD, F, GRID, 20, 5, np.random.default_rng(2))
    assert (sample.weight == 0).sum() >= 5 * 124
    assert (sample.mean[np.broadcast_to(sample.weight[:, None] == 0, sample.mean.shape)] == 0).all()


def test_continuous_inputs_fill_the_square_and_are_seen_one_by_one() -> None:
    design, noise = draw_continuous(WORLD, 500, 3, np.random.default_rng(0))
    assert design.x.shape == (3, 2, 500)
    assert np.abs(design.x).max() <= WORLD.half_width
    assert np.abs(design.x).max() > 0.98 * WORLD.half_width
    f = JOINT.evaluate(np.repeat(THETA, 3, axis=0), design).f
    sample = observe(WORLD, f, design, noise)
    assert sample.mean - f == pytest.approx(noise, abs=1e-15)
    assert (sample.weight == WORLD.noise**-2).all()
