"""Least-squares estimates: starts near the truth, all of them as one batch, the lowest chi^2 kept.

chi^2 = sum_x count_x |mean_x - f(x)|^2 / sigma^2. Shapes: R repetitions, T starts, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.theory.descent import Problem, descend
from harness.theory.regression import Regression
from harness.theory.sampling import Sample
from harness.theory.world import Array, Box, Truth

BLOCK_NUMBERS = 400_000
"""In the Jacobians of a block of fits: what a processor's cache holds."""

PROMPT_SPREAD, BIAS_SPREAD, ALPHA_SPREAD = 0.15, 0.075, 0.1
"""Standard deviations of the starting points around the truth."""


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
