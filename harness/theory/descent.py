"""Levenberg-Marquardt in a box, for many problems at once.

Parameters at a bound that the gradient pushes against are frozen, steps are cut to LONGEST_STEP and
to the box, and a problem leaves the batch when it has come to rest (Nocedal & Wright, Numerical
Optimization, 2006, chapters 10.3 and 16.7, hold the two ideas).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.theory.regression import Design, Evaluation, Regression
from harness.theory.sampling import Sample
from harness.theory.world import Array

LONGEST_STEP = 0.5
"""Of any parameter in one iteration."""
SMALL_DECREASE = 1e-6
"""Of chi^2; so many accepted steps below it end a fit: CALM_STEPS."""
CALM_STEPS = 3
LARGEST_DAMPING = 1e9
"""No smaller step lowers chi^2: a fit is at rest."""
GAUGE_WEIGHT = 0.01
"""Of the row that fixes the common constant of the biases, as a share of n / sigma^2."""
FIRST_DAMPING = 1e-3
EASIER, HARDER = 0.2, 5.0
"""What the damping is multiplied with after an accepted and after a refused step."""


@dataclass(frozen=True)
class Problem:
    """The data of a batch of fits, one entry per fit."""

    model: Regression
    design: Design
    mean: Array
    weight: Array
    gauge: float
    gauge_weight: float

    @staticmethod
    def of(model: Regression, sample: Sample, owner: np.ndarray, gauge: float) -> Problem:
        weight = 0.0
        if model.gating == "zero-init":
            weight = GAUGE_WEIGHT * sample.num_observations / model.world.noise**2
        return Problem(
            model,
            sample.design.take(owner),
            sample.mean[owner],
            sample.weight[owner],
            gauge,
            weight,
        )

    def take(self, index: np.ndarray) -> Problem:
        return Problem(
            self.model, self.design.take(index), self.mean[index], self.weight[index],
            self.gauge, self.gauge_weight,
        )  # fmt: skip

    def gauge_row(self, theta: Array) -> tuple[Array, Array]:
        """Returns log sum exp(b) less its target, (S,), and its derivative by b, (S, L)."""
        _, biases, _ = self.model.unpack(theta)
        powers = np.exp(biases)
        total = powers.sum(axis=1, keepdims=True)
        return np.log(total[:, 0]) - self.gauge, powers / total

    def chi2(self, theta: Array, f: Array) -> Array:
        residual = self.mean - f
        total = np.einsum("smM,smM,sM->s", residual, residual, self.weight)
        if self.gauge_weight:
            total = total + self.gauge_weight * self.gauge_row(theta)[0] ** 2
        return total

    def normal_equations(self, theta: Array, found: Evaluation) -> tuple[Array, Array]:
        """Returns J^T W J, (S, K, K), and J^T W (y - f), (S, K)."""
        jacobian = self.model.jacobian(found, self.design)
        count, size, outputs, places = jacobian.shape
        weighted = (jacobian * self.weight[:, None, None]).reshape(count, size, -1)
        flat = jacobian.reshape(count, size, -1)
        matrix = weighted @ np.swapaxes(flat, 1, 2)
        slope = (weighted @ (self.mean - found.f).reshape(count, -1, 1))[..., 0]
        if self.gauge_weight:
            distance, by_bias = self.gauge_row(theta)
            begin = self.model.num_atoms * self.model.world.key.shape[1]
            span = slice(begin, begin + self.model.num_atoms)
            matrix[:, span, span] += self.gauge_weight * by_bias[:, :, None] * by_bias[:, None, :]
            slope[:, span] -= self.gauge_weight * distance[:, None] * by_bias
        return matrix, slope


def descend(
    problem: Problem, theta: Array, low: Array, high: Array, max_iterations: int
) -> tuple[Array, Array, np.ndarray]:
    """Minimises chi^2 from each start.

    Args:
        problem: S problems.
        theta: starts inside the box, (S, K).
        low: lowest parameters, (K,).
        high: highest, (K,).
        max_iterations: steps tried at most.

    Returns:
        The end points (S, K), their chi^2 (S,), and whether each came to rest (S,).
    """
    ends, lowest = theta.copy(), np.empty(len(theta))
    rest = np.zeros(len(theta), dtype=bool)
    place = np.arange(len(theta))
    theta = theta.copy()
    found = problem.model.evaluate(theta, problem.design)
    chi2 = problem.chi2(theta, found.f)
    matrix, slope = problem.normal_equations(theta, found)
    damping, calm = np.full(len(theta), FIRST_DAMPING), np.zeros(len(theta), dtype=int)
    for _ in range(max_iterations):
        trial = np.clip(theta + _step(matrix, slope, damping, theta, low, high), low, high)
        found = problem.model.evaluate(trial, problem.design)
        after = problem.chi2(trial, found.f)
        better = after < chi2
        calm = np.where(better, np.where(chi2 - after < SMALL_DECREASE, calm + 1, 0), calm)
        damping = np.where(better, np.maximum(damping * EASIER, 1e-12), damping * HARDER)
        if better.any():
            chosen = np.nonzero(better)[0]
            theta[chosen], chi2[chosen] = trial[chosen], after[chosen]
            matrix[chosen], slope[chosen] = problem.take(chosen).normal_equations(
                trial[chosen], found.take(chosen)
            )
        done = (calm >= CALM_STEPS) | (damping > LARGEST_DAMPING)
        if done.any():
            ends[place[done]], lowest[place[done]] = theta[done], chi2[done]
            rest[place[done]] = True
            kept = np.nonzero(~done)[0]
            if not len(kept):
                return ends, lowest, rest
            place, problem = place[kept], problem.take(kept)
            theta, chi2, damping, calm = theta[kept], chi2[kept], damping[kept], calm[kept]
            matrix, slope = matrix[kept], slope[kept]
    ends[place], lowest[place] = theta, chi2
    return ends, lowest, rest


def _step(
    matrix: Array, slope: Array, damping: Array, theta: Array, low: Array, high: Array
) -> Array:
    """Returns the damped Gauss-Newton steps, (S, K); 0 for frozen parameters."""
    frozen = ((theta <= low) & (slope < 0)) | ((theta >= high) & (slope > 0))
    free = ~frozen
    size = matrix.shape[1]
    diagonal = np.einsum("skk->sk", matrix)
    ridge = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True)
    system = matrix * (free[:, :, None] & free[:, None, :])
    system[:, np.arange(size), np.arange(size)] += np.where(frozen, 1.0, ridge)
    step = np.linalg.solve(system, np.where(frozen, 0.0, slope)[..., None])[..., 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))
