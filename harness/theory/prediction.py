"""What theory gives: exponents in the limit, and slopes over the n at hand.

The latter are the Cramér-Rao bound's, where as many atoms are fitted as there are. Near the truth a
least-squares estimate is normal with covariance (J^T W J)^-1, W = n / (M sigma^2) at each of M
inputs. Drawing from it and measuring as fits are measured tells what a slope must be over the n at
hand, where the limit's exponent is not reached yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.theory.fitting import GAUGE_WEIGHT, bounds
from harness.theory.losses import matched_losses
from harness.theory.regression import make_design
from harness.theory.sampling import grid_inputs
from harness.theory.scenarios import Scenario
from harness.theory.world import Array

NUM_DRAWS = 2000
THEOREM = "the paper's theorem"
"""The rates of arXiv 2502.03029, zero-initialised attention; up to a power of log n."""
SHARED = "arXiv 2410.02200"
"""The same group's theorem on prefix tuning with shared keys and values; up to a power of log n."""
DERIVED = "derived here"
"""In docs/theory.md."""


@dataclass(frozen=True)
class Expectation:
    """error ~ n^exponent."""

    exponent: float
    source: str


def expectations(scenario: Scenario) -> dict[str, Expectation]:
    """Expected exponents of a scenario, by quantity; tables show these alone.

    Those of sequences are limits: they hold once the truth is close to where it goes.
    """
    rate, is_joint = scenario.rate, scenario.gating == "joint"
    if scenario.family == "copy":
        slow = 2 * rate if is_joint else 0.0
        return {
            "prompt": Expectation(-0.5 + (rate if is_joint else 0.0), DERIVED),
            "mass": Expectation(-0.5 + slow, DERIVED),
            "voronoi": Expectation(-0.5 + slow, DERIVED),
        }
    if scenario.family == "gate":
        return {"prompt": Expectation(-0.5 + rate, DERIVED)}
    if scenario.family == "merge":
        power = 2 if is_joint or scenario.knows_alpha else 4
        return {"prompt": Expectation(-0.5 + power * rate, DERIVED)}
    source = SHARED if is_joint else THEOREM
    found = {"single": Expectation(-0.5, source)}
    if scenario.extra_atoms:
        found |= {
            "over": Expectation(-0.25, source),
            "over_mean": Expectation(-0.25, DERIVED),
            "centre": Expectation(-0.5, DERIVED),
        }
    found["voronoi"] = Expectation(-0.5, source)
    if not is_joint:
        found["alpha"] = Expectation(-0.5, source)
    return found


def fisher_information(scenario: Scenario, n: int) -> Array:
    """J^T W J at the truth of n observations, (K, K), with the gauge's row."""
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
    """Losses of draws from the bound's normal distribution, cut to the box; L' = L."""
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
