"""The regression functions against the formulas, their derivatives against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.theory.regression import Regression, make_design
from harness.theory.sampling import grid_inputs
from harness.theory.scenarios import PAIR
from harness.theory.world import TRUTH, WORLD, copied_experts

MODELS = [
    Regression(gating, WORLD, 4, is_linear, known)
    for gating in ("zero-init", "joint")
    for is_linear in (True, False)
    for known in ((None, 0.7) if gating == "zero-init" else (None,))
]
GRID = make_design(WORLD.pretrained, grid_inputs(WORLD))


def draw(model: Regression, count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.7, (count, model.num_parameters))


def by_formula(model: Regression, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns f at one input, sum by sum."""
    world, experts = model.world, model.world.pretrained
    (prompts,), (biases,), (alpha,) = model.unpack(theta[None])
    logits = [x @ a @ x + c @ x + o for a, c, o in
              zip(experts.quadratic, experts.linear, experts.offset, strict=True)]  # fmt: skip
    values = [np.tanh(e @ x + s) for e, s in zip(experts.slope, experts.shift, strict=True)]
    images = [p if model.is_linear else world.output @ np.tanh(world.hidden @ p) for p in prompts]
    scores = [(world.key @ z) @ x + b for z, b in zip(images, biases, strict=True)]
    expert_part = sum(np.exp(score) * value for score, value in zip(logits, values, strict=True))
    atom_part = sum(np.exp(s) * (world.value @ z) for s, z in zip(scores, images, strict=True))
    expert_mass, atom_mass = np.exp(logits).sum(), np.exp(scores).sum()
    if model.gating == "joint":
        return (expert_part + atom_part) / (expert_mass + atom_mass)
    return expert_part / expert_mass + np.tanh(alpha) * atom_part / atom_mass


@pytest.mark.parametrize("model", MODELS)
def test_values_are_those_of_the_formula(model) -> None:
    theta = draw(model)
    found = model.evaluate(theta, GRID).f
    for s in range(len(theta)):
        for index in (0, 17, 143):
            expected = by_formula(model, theta[s], GRID.x[0, :, index])
            assert found[s, :, index] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_derivatives_are_those_of_finite_differences(model) -> None:
    theta, step = draw(model), 1e-5
    exact = model.jacobian(model.evaluate(theta, GRID), GRID)
    for k in range(model.num_parameters):
        move = step * np.eye(model.num_parameters)[k]
        ahead, behind = (model.evaluate(theta + sign * move, GRID).f for sign in (1, -1))
        assert np.abs((ahead - behind) / (2 * step) - exact[:, k]).max() < 1e-8


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_the_atoms_changes_nothing(model) -> None:
    prompts, biases, alpha = model.unpack(draw(model))
    order = [2, 0, 3, 1]
    swapped = model.pack(prompts[:, order], biases[:, order], alpha)
    same = model.pack(prompts, biases, alpha)
    difference = model.evaluate(swapped, GRID).f - model.evaluate(same, GRID).f
    assert np.abs(difference).max() < 1e-13


def test_a_common_constant_of_the_biases_is_free_in_zero_init_alone() -> None:
    for model in MODELS:
        prompts, biases, alpha = model.unpack(draw(model))
        shifted = model.evaluate(model.pack(prompts, biases + 0.5, alpha), GRID).f
        difference = np.abs(shifted - model.evaluate(draw(model), GRID).f).max()
        assert (difference < 1e-13) == (model.gating == "zero-init")


def test_joint_attention_does_not_see_the_mass_of_exact_copies() -> None:
    world = replace(WORLD, pretrained=copied_experts(WORLD, PAIR.prompts, PAIR.biases))
    model = Regression("joint", world, 2)
    design = make_design(world.pretrained, grid_inputs(world))
    light, heavy = (model.pack(PAIR.prompts, PAIR.biases + shift, 0.0)[None] for shift in (0, 1))
    difference = model.evaluate(light, design).f - model.evaluate(heavy, design).f
    assert np.abs(difference).max() < 1e-13


def test_large_scores_do_not_overflow() -> None:
    for model in MODELS:
        found = model.evaluate(400 * draw(model), GRID)
        assert np.isfinite(found.f).all()
        assert np.isfinite(model.jacobian(found, GRID)).all()


def test_parameter_vectors_unpack_to_what_was_packed() -> None:
    model = Regression("zero-init", WORLD, 3)
    theta = model.pack(TRUTH.prompts, TRUTH.biases, np.array(TRUTH.alpha))
    assert len(theta) == model.num_parameters == 10
    prompts, biases, alpha = model.unpack(theta[None])
    assert (prompts[0] == TRUTH.prompts).all()
    assert (biases[0] == TRUTH.biases).all()
    assert alpha[0] == TRUTH.alpha
