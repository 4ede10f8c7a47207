"""The fits: in the lowest point of the box, as a library's solver, each time the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from harness.theory.fitting import Problem, bounds, descend, draw_starts, fit
from harness.theory.regression import Regression, make_design
from harness.theory.sampling import draw_on_grid, grid_inputs
from harness.theory.world import TRUTH, WORLD, Box

GRID = make_design(WORLD.pretrained, grid_inputs(WORLD))
GAUGE = float(np.log(np.exp(TRUTH.biases).sum()))


def sample_of(gating: str, n: int = 3000, repetitions: int = 3):
    model = Regression(gating, WORLD, 3)
    theta = model.pack(TRUTH.prompts, TRUTH.biases, np.array(TRUTH.alpha))[None]
    f = model.evaluate(theta, GRID).f[0]
    return model, draw_on_grid(WORLD, f, GRID, n, repetitions, np.random.default_rng(4))


@pytest.mark.parametrize("gating", ["zero-init", "joint"])
@pytest.mark.parametrize("extra", [0, 1])
def test_no_library_solver_finds_a_lower_point_from_the_best_fit(gating, extra) -> None:
    _, sample = sample_of(gating)
    model = Regression(gating, WORLD, 3 + extra)
    starts = draw_starts(model, TRUTH, 3, 4, np.random.default_rng(0))
    found = fit(model, sample, starts, Box(), gauge=GAUGE)
    low, high = bounds(model, Box())
    for index in range(3):
        problem = Problem.of(model, sample, np.array([index]), GAUGE)

        def residuals(theta, problem=problem):
            f = model.evaluate(theta[None], GRID).f
            parts = (problem.mean - f) * np.sqrt(problem.weight)[:, None]
            gauge = np.sqrt(problem.gauge_weight) * problem.gauge_row(theta[None])[0]
            return np.concatenate([parts.ravel(), gauge])

        inside = np.clip(found.theta[index], low + 1e-9, high - 1e-9)
        theirs = least_squares(residuals, inside, bounds=(low, high), xtol=1e-12, ftol=1e-12)
        # Over-fits end in a flat valley, at a decrease that is small in units of chi^2.
        assert found.chi2[index] <= 2 * theirs.cost + (0.05 if extra else 1e-5)


@pytest.mark.parametrize("gating", ["zero-init", "joint"])
def test_exact_fits_converge_near_the_truth_inside_the_box(gating) -> None:
    model, sample = sample_of(gating)
    starts = draw_starts(model, TRUTH, 3, 3, np.random.default_rng(0))
    found = fit(model, sample, starts, Box(), gauge=GAUGE)
    low, high = bounds(model, Box())
    assert found.converged.all()
    assert (found.starts_at_best == 1).all()
    assert ((found.theta >= low) & (found.theta <= high)).all()
    prompts, biases, _ = model.unpack(found.theta)
    assert np.abs(prompts - TRUTH.prompts).max() < 0.1
    # 288 residuals less the parameters: chi^2 of the truth's model.
    assert (np.abs(found.chi2 - 278) < 5 * np.sqrt(2 * 278)).all()
    if gating == "zero-init":
        assert np.log(np.exp(biases).sum(axis=1)) == pytest.approx(GAUGE, abs=1e-6)


def test_a_bound_that_binds_holds_the_parameter() -> None:
    model, sample = sample_of("joint")
    box = Box(prompt=0.9)
    starts = draw_starts(model, TRUTH, 3, 3, np.random.default_rng(0))
    found = fit(model, sample, starts, box)
    prompts, _, _ = model.unpack(found.theta)
    assert found.converged.all()
    assert (np.abs(prompts) <= 0.9).all()
    assert (prompts[:, 0, 0] == 0.9).all()


def test_fits_do_not_depend_on_what_else_is_in_the_batch() -> None:
    model, sample = sample_of("zero-init")
    starts = draw_starts(model, TRUTH, 3, 3, np.random.default_rng(0))
    low, high = bounds(model, Box())
    owner = np.repeat(np.arange(3), 3)
    theta = np.clip(starts, low, high).reshape(9, -1)
    together = descend(Problem.of(model, sample, owner, GAUGE), theta, low, high, 100)[0]
    for index in range(9):
        problem = Problem.of(model, sample, owner[index : index + 1], GAUGE)
        alone = descend(problem, theta[index : index + 1], low, high, 100)[0]
        assert alone[0] == pytest.approx(together[index], abs=1e-9)


def test_starts_beyond_the_truth_share_the_mass_of_the_prompt_that_they_copy() -> None:
    model = Regression("joint", WORLD, 4)
    starts = draw_starts(model, TRUTH, 200, 6, np.random.default_rng(0))
    prompts, biases, _ = model.unpack(starts.reshape(-1, model.num_parameters))
    copied = np.linalg.norm(prompts[:, 3:] - TRUTH.prompts, axis=-1).argmin(axis=1)
    by_start = copied.reshape(200, 6)
    assert (by_start[:, :3] == [0, 1, 2]).mean() > 0.99
    assert set(by_start[:, 5]) == {0, 1, 2}
    pair = biases[copied == 1][:, [1, 3]].mean(axis=0)
    assert pair == pytest.approx(TRUTH.biases[1] - np.log(2), abs=0.02)


def test_the_same_seed_gives_the_same_fit_and_leaves_the_global_generator() -> None:
    model, sample = sample_of("joint")
    before = np.random.get_state()[1].copy()
    found = [
        fit(model, sample, draw_starts(model, TRUTH, 3, 2, np.random.default_rng(9)), Box()).theta
        for _ in range(2)
    ]
    assert (found[0] == found[1]).all()
    assert (np.random.get_state()[1] == before).all()
