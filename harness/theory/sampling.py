"""Data: an exact design whose cost does not depend on n, and continuous inputs.

With x uniform on M fixed inputs, the count of each and the mean of y at each are sufficient:
sum_i |Y_i - f(X_i)|^2 = sum_x count_x |mean_x - f(x)|^2 + a constant, with counts multinomial and
means normal around f with variance sigma^2 / count. So drawing those is drawing n observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.theory.regression import Design, make_design
from harness.theory.world import Array, World

GRID_SIDE = 12
"""Inputs per axis of the grid."""


@dataclass(frozen=True)
class Sample:
    """What repetitions of an experiment observed; R repetitions."""

    design: Design
    """Leading axis 1 for the grid, R for continuous inputs."""
    mean: Array
    """Mean of y at each input, (R, m, M); 0 where it was not drawn."""
    weight: Array
    """count / sigma^2, (R, M): inverse variance of each mean."""
    num_observations: int
    """n."""


def grid_inputs(world: World, side: int = GRID_SIDE) -> Array:
    """Midpoints of a side x side grid on the square of inputs, (1, 2, side^2)."""
    step = 2 * world.half_width / side
    axis = -world.half_width + step * (np.arange(side) + 0.5)
    first, second = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([first.ravel(), second.ravel()])[None]


def draw_on_grid(
    world: World, f: Array, design: Design, n: int, repetitions: int, random: np.random.Generator
) -> Sample:
    """n observations on the grid, for each repetition, as counts and means.

    f is the true function at the inputs of the grid's design, (m, M).
    """
    size = f.shape[-1]
    counts = random.multinomial(n, np.full(size, 1 / size), size=repetitions).astype(float)
    noise = random.standard_normal((repetitions, *f.shape))
    drawn = counts > 0
    spread = np.where(drawn, world.noise / np.sqrt(np.where(drawn, counts, 1)), 0)
    mean = np.where(drawn[:, None], f + spread[:, None] * noise, 0)
    return Sample(design, mean, counts / world.noise**2, n)


def draw_continuous(
    world: World, n: int, repetitions: int, random: np.random.Generator
) -> tuple[Design, Array]:
    """Designs of n inputs uniform on the square, and noise, both for each repetition."""
    size, outputs = world.key.shape[0], world.value.shape[0]
    x = random.uniform(-world.half_width, world.half_width, (repetitions, size, n))
    noise = world.noise * random.standard_normal((repetitions, outputs, n))
    return make_design(world.pretrained, x), noise


def observe(world: World, f: Array, design: Design, noise: Array) -> Sample:
    """Single observations f + noise; f and noise are (R, m, n)."""
    repetitions, _, n = noise.shape
    return Sample(design, f + noise, np.full((repetitions, n), world.noise**-2), n)
