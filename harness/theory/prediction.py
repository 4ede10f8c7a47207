"""What the Cramér-Rao bound predicts where as many atoms are fitted as there are.

Near the truth a least-squares estimate is normal with covariance (J^T W J)^-1, W = n / (M sigma^2)
at each of M inputs. Drawing from it and measuring as fits are measured tells what a slope must be
over the n at hand, where the limit's exponent is not reached yet.
"""

from __future__ import annotations

import numpy as np

from harness.theory.descent import GAUGE_WEIGHT
from harness.theory.fitting import bounds
from harness.theory.losses import matched_losses
from harness.theory.regression import make_design
from harness.theory.sampling import grid_inputs
from harness.theory.scenarios import Scenario
from harness.theory.world import Array

NUM_DRAWS = 2000


def fisher_information(scenario: Scenario, n: int) -> Array:
    """Returns J^T W J at the truth of n observations, (K, K), with the gauge's row."""
    problem = scenario.problem(n)
    model, truth, world = problem.true_model(), problem.truth, problem.world
    theta = model.pack_truth(truth)
    grid = make_design(world.pretrained, grid_inputs(world))
    jacobian = model.jacobian(model.evaluate(theta, grid), grid)[0]
    flat = jacobian.reshape(len(jacobian), -1)
    precision = n / world.noise**2
    matrix = precision / grid.x.shape[-1] * (flat @ flat.T)
    if model.gating == "zero-init":
        row = np.zeros(len(matrix))
        powers = np.exp(truth.biases)
        begin = truth.prompts.size
        row[begin : begin + len(powers)] = powers / powers.sum()
        matrix += GAUGE_WEIGHT * precision * np.outer(row, row)
    return matrix


def predict_errors(scenario: Scenario, n: int, random: np.random.Generator) -> dict[str, Array]:
    """Losses of draws from the bound's normal distribution, cut to the box.

    Args:
        scenario: one with L' = L.
        n: observations.
        random: makes the draws.
    """
    problem = scenario.problem(n)
    model, truth = problem.true_model(), problem.truth
    (theta,) = model.pack_truth(truth)
    # Through the eigenvectors: at the corners the matrix is close to singular.
    values, vectors = np.linalg.eigh(fisher_information(scenario, n))
    values = np.maximum(values, values[-1] * 1e-14)
    normal = random.standard_normal((NUM_DRAWS, len(theta)))
    draws = theta + (normal / np.sqrt(values)) @ vectors.T
    low, high = bounds(model, problem.box)
    return matched_losses(model, truth, np.clip(draws, low, high))
