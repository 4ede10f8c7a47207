"""The known parts of the simulation, a truth to be estimated, and what makes a truth unfit for it.

Symbols as in the theory's section of arXiv 2502.03029; the numbers are ours. Shapes: d inputs,
q prompt size, m outputs, N pre-trained experts, L prompts ("atoms"), H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

Array = NDArray[np.float64]

SMALLEST_RANK_RATIO = 1e-6
"""A singular value below this share of the largest one counts as zero."""
FEWEST_ATOMS_FOR_ZERO_INIT = 3
"""With two prompts and an unknown gate the rates show only from n = 1e5 on."""


@dataclass(frozen=True)
class PretrainedExperts:
    """Experts with scores x^T A_k x + c_k^T x + a_k and values h_k(x).

    The values are tanh(E_k x + e_k), or the constants e_k where `slope` is None.
    """

    quadratic: Array
    """A, (N, d, d)."""
    linear: Array
    """c, (N, d)."""
    offset: Array
    """a, (N,)."""
    slope: Array | None
    """E, (N, m, d)."""
    shift: Array
    """e, (N, m)."""


@dataclass(frozen=True)
class World:
    """All that the estimator knows."""

    key: Array
    """B, (d, q): a prompt's score is (B z)^T x + b."""
    value: Array
    """C, (m, q): a prompt's expert is C z."""
    pretrained: PretrainedExperts
    hidden: Array
    """W1, (H, q), of the non-linear prompts z = W2 tanh(W1 p)."""
    output: Array
    """W2, (q, H)."""
    noise: float = 0.1
    """sigma: the standard deviation of each output's error."""
    half_width: float = 2.5
    """x is drawn from [-half_width, half_width]^d."""


@dataclass(frozen=True)
class Truth:
    """What is to be estimated: G* = sum_j exp(b_j) delta_{p_j}, and the gate alpha*."""

    prompts: Array
    """p*, (L, q)."""
    biases: Array
    """b*, (L,)."""
    alpha: float = 0.8
    """The gate is tanh(alpha); the joint softmax has none."""


@dataclass(frozen=True)
class Box:
    """The compact parameter set of the theorems: estimates are searched in it."""

    prompt: float = 2.5
    """|p| at most, in each coordinate."""
    bias_low: float = -1.0
    bias_high: float = 1.0
    alpha_low: float = 0.0005
    alpha_high: float = 2.0


WORLD = World(
    key=np.array([[1.5, 0.4], [-0.5, 1.2]]),
    value=np.array([[1.0, -0.3], [0.4, 1.1]]),
    pretrained=PretrainedExperts(
        quadratic=np.array([[[0.5, 0.2], [0.2, -0.4]], [[-0.3, 0.1], [0.1, 0.6]]]),
        linear=np.zeros((2, 2)),
        offset=np.array([0.0, 0.3]),
        slope=np.array([[[1.0, -0.5], [0.3, 0.8]], [[-0.7, 0.6], [0.5, -0.9]]]),
        shift=np.array([[0.5, -0.4], [-0.6, 0.7]]),
    ),
    hidden=np.array([[1.0, 0.3], [-0.4, 0.9], [0.7, -0.8], [0.2, 0.6]]),
    output=np.array([[0.9, -0.5, 0.6, 0.1], [0.3, 0.9, -0.6, 0.5]]),
)
"""Chosen once, so that the rates show from n = 1e3 on, and then kept."""

TRUTH = Truth(
    prompts=np.array([[1.2, 0.3], [-1.0, 0.9], [0.1, -1.2]]), biases=np.array([0.2, -0.1, 0.0])
)


def copied_experts(world: World, prompts: Array, biases: Array) -> PretrainedExperts:
    """Pre-trained experts that are copies of prompts (N, q) with biases (N,): scores
    (B p_k)^T x + b_k, values C p_k."""
    count, size = prompts.shape[0], world.key.shape[0]
    return PretrainedExperts(
        quadratic=np.zeros((count, size, size)),
        linear=prompts @ world.key.T,
        offset=biases,
        slope=None,
        shift=prompts @ world.value.T,
    )


def check_truth(
    world: World, truth: Truth, box: Box, *, has_gate: bool, num_atoms: int
) -> tuple[str, ...]:
    """Checks that a truth can be estimated, and returns one line for each weakness that it has.

    Args:
        has_gate: whether the model is zero-initialised attention.
        num_atoms: L' of the fit.

    Raises:
        UsageError: no estimator could find it, or the fit is smaller than the truth.
    """
    for fault in _faults(world, truth, box, has_gate, num_atoms):
        raise UsageError(f"theory: {fault}")
    return tuple(
        f"theory: {line}" for line in _weaknesses(world, len(truth.prompts), has_gate, num_atoms)
    )


def _faults(world: World, truth: Truth, box: Box, has_gate: bool, num_atoms: int) -> Iterator[str]:
    """Yields why a truth cannot be estimated; a later line may rely on the earlier ones."""
    prompts, length, size = truth.prompts, len(truth.prompts), world.key.shape[1]
    if length < 1 or prompts.shape[1:] != (size,):
        yield (
            f"L must be at least 1: a truth has prompts of shape (L, {size}) (got {prompts.shape});"
            " give one row per prompt"
        )
    if truth.biases.shape != (length,):
        yield (
            f"{length} prompts need {length} biases (got {truth.biases.shape}); give one per prompt"
        )
    if num_atoms < length:
        yield (
            f"L' must be at least L = {length} (got {num_atoms}); "
            "fewer fitted prompts than true ones cannot converge"
        )
    if world.noise <= 0:
        yield f"noise must be above 0 (got {world.noise:g})"
    if has_gate and truth.alpha == 0:
        yield "alpha must not be 0: tanh(0) hides the prompts; choose |alpha| > 0"
    gaps = np.linalg.norm(prompts[:, None] - prompts[None], axis=-1)
    for first, second in np.argwhere(np.triu(gaps < 1e-9, k=1)):
        yield (
            f"prompts {first} and {second} are equal: they are one prompt with the sum of the "
            "masses; leave one out or move it"
        )
    ranges = [
        ("prompts", prompts, -box.prompt, box.prompt),
        ("biases", truth.biases, box.bias_low, box.bias_high),
    ]
    if has_gate:
        ranges.append(("alpha", np.array(truth.alpha), box.alpha_low, box.alpha_high))
    outside = [name for name, x, low, high in ranges if not ((x >= low) & (x <= high)).all()]
    if outside:
        yield (
            f"{' and '.join(outside)} of the truth lie outside the box {box}; "
            "widen the box or move the truth"
        )
    if _rank(np.vstack([world.key, world.value])) < size:
        yield (
            "B and C have a common null direction: no data tell prompts apart along it; "
            "give [B; C] full column rank"
        )


def _weaknesses(world: World, length: int, has_gate: bool, num_atoms: int) -> Iterator[str]:
    size = world.key.shape[1]
    for name, matrix in (("B", world.key), ("C", world.value)):
        if _rank(matrix) < size:
            yield (
                f"{name} is rank-deficient ({_rank(matrix)} of {size}): fits with more prompts "
                "than the truth are not identified along its null direction"
            )
    if has_gate and length == 1:
        yield (
            "L = 1: only the product tanh(alpha) C p is identified, not alpha and p; "
            "give alpha as known, or L >= 2"
        )
    elif has_gate and length < FEWEST_ATOMS_FOR_ZERO_INIT:
        yield (
            f"L = {length} with an unknown gate: rates may show only from n = 1e5 on; "
            f"use L >= {FEWEST_ATOMS_FOR_ZERO_INIT}"
        )
    if num_atoms > length + 2:
        yield f"L' = L + {num_atoms - length}: only up to L + 2 has been tried"


def _rank(matrix: Array) -> int:
    return int(np.linalg.matrix_rank(matrix, rtol=SMALLEST_RANK_RATIO))
