"""Losses against sums by hand; renaming and shifting change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from harness.theory.losses import cell_losses, function_loss, matched_losses
from harness.theory.regression import Regression, make_design
from harness.theory.sampling import grid_inputs
from harness.theory.scenarios import PAIR
from harness.theory.world import TRUTH, WORLD

ZERO = Regression("zero-init", WORLD, 4)
JOINT = Regression("joint", WORLD, 4)


def estimate(model: Regression) -> np.ndarray:
    """Returns one fit: first prompt doubled, the others moved by (.03, .04) and (0, .1)."""
    prompts = np.stack(
        [
            TRUTH.prompts[0] + [0.3, 0.0],
            TRUTH.prompts[1] + [0.03, 0.04],
            TRUTH.prompts[2] + [0.0, 0.1],
            TRUTH.prompts[0] - [0.0, 0.2],
        ]
    )
    biases = np.array([-0.4, -0.1, 0.1, -0.6])
    return model.pack(prompts, biases, np.array(0.9))[None]


def test_cells_are_summed_as_in_the_formula() -> None:
    found = cell_losses(JOINT, TRUTH, estimate(JOINT))
    w = np.exp([-0.4, -0.1, 0.1, -0.6])
    true = np.exp(TRUTH.biases)
    mass = abs(w[0] + w[3] - true[0]) + abs(w[1] - true[1]) + abs(w[2] - true[2])
    expected = {
        "single": 0.1,
        "over": 0.3,
        "over_mean": (0.3 * w[0] + 0.2 * w[3]) / (w[0] + w[3]),
        "centre": np.hypot(0.3 * w[0], 0.2 * w[3]) / (w[0] + w[3]),
        "mass": mass,
        "voronoi": 0.05 * w[1] + 0.1 * w[2] + 0.09 * w[0] + 0.04 * w[3] + mass,
        "empty": 0.0,
    }
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(expected)


def test_zero_init_counts_the_gate_and_normalises_weights() -> None:
    found = cell_losses(ZERO, TRUTH, estimate(ZERO))
    w = np.exp([-0.4, -0.1, 0.1, -0.6])
    w /= w.sum()
    true = np.exp(TRUTH.biases) / np.exp(TRUTH.biases).sum()
    mass = abs(w[0] + w[3] - true[0]) + abs(w[1] - true[1]) + abs(w[2] - true[2])
    distances = 0.05 * w[1] + 0.1 * w[2] + 0.09 * w[0] + 0.04 * w[3]
    assert found["alpha"][0] == pytest.approx(0.1)
    assert found["mass"][0] == pytest.approx(mass)
    gate = np.tanh(0.9) - np.tanh(0.8)
    assert found["voronoi"][0] == pytest.approx(distances + mass + gate)


@pytest.mark.parametrize("model", [ZERO, JOINT])
def test_renaming_the_atoms_changes_no_loss(model) -> None:
    prompts, biases, alpha = model.unpack(estimate(model))
    first = cell_losses(model, TRUTH, estimate(model))
    for order in ([3, 2, 1, 0], [1, 0, 3, 2]):
        swapped = model.pack(prompts[:, order], biases[:, order], alpha)
        assert cell_losses(model, TRUTH, swapped) == {
            name: pytest.approx(values, abs=1e-14) for name, values in first.items()
        }


def test_a_common_constant_of_the_biases_changes_no_loss_of_zero_init() -> None:
    prompts, biases, alpha = ZERO.unpack(estimate(ZERO))
    shifted = cell_losses(ZERO, TRUTH, ZERO.pack(prompts, biases + 0.7, alpha))
    for name, values in cell_losses(ZERO, TRUTH, estimate(ZERO)).items():
        assert shifted[name] == pytest.approx(values, abs=1e-14)


def test_the_truth_has_no_loss() -> None:
    for gating in ("zero-init", "joint"):
        model = Regression(gating, WORLD, 3)
        theta = model.pack(TRUTH.prompts, TRUTH.biases, np.array(TRUTH.alpha))[None]
        found = cell_losses(model, TRUTH, theta)
        assert np.isnan(found["over"]).all()
        assert {n for n, v in found.items() if not np.isnan(v).any() and v.any()} == set()


def test_a_cell_without_an_atom_is_counted_and_its_mass_is_missed() -> None:
    prompts = np.stack([TRUTH.prompts[0]] * 2 + [TRUTH.prompts[1]])
    model = Regression("joint", WORLD, 3)
    theta = model.pack(prompts, np.zeros(3), 0.0)[None]
    found = cell_losses(model, TRUTH, theta)
    assert found["empty"][0] == 1
    assert found["mass"][0] >= np.exp(TRUTH.biases[2])


def test_matching_finds_the_nearest_naming() -> None:
    model = Regression("zero-init", WORLD, 2)
    moved = PAIR.prompts[::-1] + [[0.01, 0.0], [0.0, 0.02]]
    theta = model.pack(moved, PAIR.biases[::-1] + 0.3, np.array(PAIR.alpha))[None]
    found = matched_losses(model, PAIR, theta)
    assert found["prompt"][0] == pytest.approx(0.02)
    assert found["mass"][0] == pytest.approx(0, abs=1e-14)
    w = np.exp(PAIR.biases) / np.exp(PAIR.biases).sum()
    assert found["voronoi"][0] == pytest.approx(0.02 * w[0] + 0.01 * w[1])


def test_the_function_loss_is_the_root_mean_square_over_inputs() -> None:
    grid = make_design(WORLD.pretrained, grid_inputs(WORLD))
    f = JOINT.evaluate(estimate(JOINT), grid).f[0]
    assert function_loss(JOINT, estimate(JOINT), f, grid)[0] == 0
    assert function_loss(JOINT, estimate(JOINT), f + 0.3, grid)[0] == pytest.approx(0.3 * 2**0.5)
