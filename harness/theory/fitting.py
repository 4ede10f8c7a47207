"""Least-squares estimates by Levenberg-Marquardt in a box, for many problems at once.

chi^2 = sum_x count_x |mean_x - f(x)|^2 / sigma^2. Starts lie near the truth, all of them in one
batch; the lowest chi^2 is kept. Parameters at a bound that the gradient pushes against are frozen,
steps are cut to LONGEST_STEP and to the box, and a problem leaves the batch when it has converged
(Nocedal & Wright, Numerical Optimization, 2006, chapters 10.3 and 16.7).

Shapes: R repetitions, T starts, S problems of a batch, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.theory.regression import Design, Evaluation, Regression
from harness.theory.sampling import Sample
from harness.theory.world import Array, Box, Truth

LONGEST_STEP = 0.5
"""Largest change of a parameter in one iteration."""
SMALL_DECREASE = 1e-6
"""Decrease of chi^2 below which a fit has converged."""
PATIENCE = 3
"""Accepted steps in a row with a smaller decrease, after which a fit has converged."""
LARGEST_DAMPING = 1e9
"""A fit whose steps need more has converged: no smaller step lowers chi^2."""
GAUGE_WEIGHT = 0.01
"""Weight of the residual that fixes the biases' common constant, as a share of n / sigma^2."""
FIRST_DAMPING = 1e-3
ACCEPTED_FACTOR, REJECTED_FACTOR = 0.2, 5.0
"""The damping is multiplied with these after an accepted and after a rejected step."""
BLOCK_NUMBERS = 400_000
"""In the Jacobians of a block of fits: what a processor's cache holds."""

PROMPT_SPREAD, BIAS_SPREAD, ALPHA_SPREAD = 0.15, 0.075, 0.1
"""Standard deviations of the starting points around the truth."""


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
        design, mean = sample.design.take(owner), sample.mean[owner]
        return Problem(model, design, mean, sample.weight[owner], gauge, weight)

    def take(self, index: np.ndarray) -> Problem:
        design, mean = self.design.take(index), self.mean[index]
        return replace(self, design=design, mean=mean, weight=self.weight[index])

    def gauge_row(self, theta: Array) -> tuple[Array, Array]:
        """Log sum exp(b) less its target, (S,), and its derivative by b, (S, L)."""
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
        """J^T W J, (S, K, K), and J^T W (y - f), (S, K)."""
        jacobian = self.model.jacobian(found, self.design)
        count, size = jacobian.shape[:2]
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

    Starts theta, (S, K), lie inside the box from `low` to `high`, (K,); at most `max_iterations`
    steps are tried.

    Returns:
        The end points (S, K), their chi^2 (S,), and whether each converged (S,).
    """
    ends, lowest = theta.copy(), np.empty(len(theta))
    converged = np.zeros(len(theta), dtype=bool)
    index = np.arange(len(theta))
    theta = theta.copy()
    found = problem.model.evaluate(theta, problem.design)
    chi2 = problem.chi2(theta, found.f)
    matrix, slope = problem.normal_equations(theta, found)
    damping, waited = np.full(len(theta), FIRST_DAMPING), np.zeros(len(theta), dtype=int)
    for _ in range(max_iterations):
        trial = np.clip(theta + _step(matrix, slope, damping, theta, low, high), low, high)
        found = problem.model.evaluate(trial, problem.design)
        after = problem.chi2(trial, found.f)
        better = after < chi2
        waited = np.where(better, np.where(chi2 - after < SMALL_DECREASE, waited + 1, 0), waited)
        damping = np.maximum(damping * np.where(better, ACCEPTED_FACTOR, REJECTED_FACTOR), 1e-12)
        if better.any():
            chosen = np.nonzero(better)[0]
            theta[chosen], chi2[chosen] = trial[chosen], after[chosen]
            matrix[chosen], slope[chosen] = problem.take(chosen).normal_equations(
                trial[chosen], found.take(chosen)
            )
        done = (waited >= PATIENCE) | (damping > LARGEST_DAMPING)
        if done.any():
            ends[index[done]], lowest[index[done]] = theta[done], chi2[done]
            converged[index[done]] = True
            kept = np.nonzero(~done)[0]
            if not len(kept):
                return ends, lowest, converged
            index, problem = index[kept], problem.take(kept)
            theta, chi2, damping, waited = theta[kept], chi2[kept], damping[kept], waited[kept]
            matrix, slope = matrix[kept], slope[kept]
    ends[index], lowest[index] = theta, chi2
    return ends, lowest, converged


def _step(
    matrix: Array, slope: Array, damping: Array, theta: Array, low: Array, high: Array
) -> Array:
    """Damped Gauss-Newton steps, (S, K); 0 for frozen parameters."""
    frozen = ((theta <= low) & (slope < 0)) | ((theta >= high) & (slope > 0))
    diagonal = np.einsum("skk->sk", matrix)
    ridge = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True)
    system = matrix * ~(frozen[:, :, None] | frozen[:, None, :])
    np.einsum("skk->sk", system)[...] += np.where(frozen, 1.0, ridge)
    step = np.linalg.solve(system, np.where(frozen, 0.0, slope)[..., None])[..., 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))


@dataclass(frozen=True)
class Fit:
    """The best of all starts, by repetition."""

    theta: Array
    """(R, K)."""
    chi2: Array
    """(R,)."""
    converged: np.ndarray
    """(R,): whether it converged within the iterations."""
    starts_at_best: Array
    """(R,): share of the starts that ended within 0.5 of the lowest chi^2."""


def bounds(model: Regression, box: Box) -> tuple[Array, Array]:
    """Lowest and highest parameter vectors, (K,) each."""
    prompts = np.full((model.num_atoms, model.world.key.shape[1]), box.prompt)
    biases = np.ones(model.num_atoms)
    low = model.pack(-prompts, box.bias_low * biases, box.alpha_low)
    return low, model.pack(prompts, box.bias_high * biases, box.alpha_high)


def draw_starts(
    model: Regression,
    truth: Truth,
    repetitions: int,
    num_starts: int,
    random: np.random.Generator,
) -> Array:
    """Starting points near the truth, (R, T, K).

    Atoms beyond the truth's are copies of true atoms, each in turn and then at random, and the
    copies share the mass: b - log(multiplicity).
    """
    length, extra = len(truth.prompts), model.num_atoms - len(truth.prompts)
    shape = (repetitions, num_starts, model.num_atoms)
    owners = np.empty(shape, dtype=int)
    owners[..., :length] = np.arange(length)
    if extra:
        turn, first = np.arange(num_starts)[:, None], np.arange(extra) == 0
        drawn = random.integers(length, size=(*shape[:2], extra))
        owners[..., length:] = np.where(first & (turn < length), turn % length, drawn)
    multiplicity = (owners[..., :, None] == owners[..., None, :]).sum(axis=-1)
    prompts, biases = truth.prompts[owners], truth.biases[owners] - np.log(multiplicity)
    prompts = prompts + PROMPT_SPREAD * random.standard_normal(prompts.shape)
    biases = biases + BIAS_SPREAD * random.standard_normal(shape)
    alpha = truth.alpha + ALPHA_SPREAD * random.standard_normal(shape[:2])
    return model.pack(prompts, biases, alpha)


def fit(
    model: Regression,
    sample: Sample,
    starts: Array,
    box: Box,
    *,
    gauge: float = 0.0,
    max_iterations: int = 300,
) -> Fit:
    """Least-squares fits, the best of the starts (R, T, K) for each repetition.

    Args:
        gauge: zero-init: log sum exp(b) of the truth. One added residual pulls the fit's there,
            which costs nothing where no bound binds, since a common constant of b changes nothing.
        max_iterations: of each start.
    """
    repetitions, num_starts, size = starts.shape
    low, high = bounds(model, box)
    first = np.clip(starts, low, high).reshape(-1, size)
    owner = np.repeat(np.arange(repetitions), num_starts)
    theta, chi2 = np.empty_like(first), np.empty(len(first))
    converged = np.zeros(len(first), dtype=bool)
    numbers = size * sample.mean.shape[1] * sample.mean.shape[2]
    block = max(1, BLOCK_NUMBERS // numbers)
    for start in range(0, len(first), block):
        chosen = slice(start, start + block)
        problem = Problem.of(model, sample, owner[chosen], gauge)
        theta[chosen], chi2[chosen], converged[chosen] = descend(
            problem, first[chosen], low, high, max_iterations
        )
    by_start = chi2.reshape(repetitions, num_starts)
    best = by_start.argmin(axis=1)
    rows = np.arange(repetitions)
    lowest = by_start[rows, best]
    return Fit(
        theta=theta.reshape(repetitions, num_starts, size)[rows, best],
        chi2=lowest,
        converged=converged.reshape(repetitions, num_starts)[rows, best],
        starts_at_best=(by_start <= lowest[:, None] + 0.5).mean(axis=1),
    )
