"""The settings that are simulated: fixed truths, and truths that move with n.

A truth that moves is a sequence: at each n a harder one is estimated, delta_n = size *
(n / 100)^-rate. Section 6 of docs/theory.md derives what each must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from harness.theory.regression import Gating, Regression
from harness.theory.world import TRUTH, WORLD, Box, Truth, World, check_truth, copied_experts

Family = Literal["fixed", "copy", "gate", "merge", "random", "continuous"]

PAIR = Truth(prompts=np.array([[1.3, 0.5], [-1.1, 0.9]]), biases=np.array([0.2, -0.1]))
"""The two prompts of the sequences."""
AWAY = np.array([[0.8, -0.6], [0.5, 0.85]])
"""Where they lie from the pre-trained experts that they drift to."""
MERGING = np.array([-0.8, 0.6])
"""Where the second lies from the first, in the merging sequence."""
RATES = (0.0, 0.125, 0.25)
RANDOM_SEED = 7
"""Seed of the drawn truths."""


@dataclass(frozen=True)
class Problem:
    """What is to be estimated at one n, and how."""

    world: World
    truth: Truth
    box: Box
    model: Regression
    """The fitted one."""
    weaknesses: tuple[str, ...]
    """A line for each; see `world.check_truth`."""

    def true_model(self) -> Regression:
        """The fitted model, with as many atoms as the truth has."""
        return replace(self.model, num_atoms=len(self.truth.prompts))


@dataclass(frozen=True)
class Scenario:
    """One curve of errors against n."""

    family: Family
    gating: Gating
    is_linear: bool = True
    extra_atoms: int = 0
    """L' - L."""
    rate: float = 0.0
    """a of the sequences: how fast the truth moves."""
    knows_alpha: bool = False
    draw: int = 0
    """Which drawn truth, of the family `random`."""

    @property
    def name(self) -> str:
        """What it is called in files: `fixed-over1-zero-init-linear`, `copy-a0.25-joint-linear`."""
        drawn = str(self.draw + 1) if self.family == "random" else ""
        effort = f"over{self.extra_atoms}" if self.extra_atoms else "exact"
        parts = [self.family + drawn, f"a{self.rate:g}" if self.is_sequence else effort]
        parts += [self.gating, "linear" if self.is_linear else "nonlinear"]
        return "-".join([*parts, *(["alpha-known"] if self.knows_alpha else [])])

    @property
    def is_sequence(self) -> bool:
        """Whether the truth moves with n."""
        return self.family in ("copy", "gate", "merge")

    @property
    def model_title(self) -> str:
        """The model, as printed."""
        prompts = "linear" if self.is_linear else "non-linear"
        gating = "zero-init" if self.gating == "zero-init" else "joint softmax"
        return f"{gating}, {prompts}" + (", alpha known" if self.knows_alpha else "")

    @property
    def setting_title(self) -> str:
        """The truth, as printed, with L' where the truth is fixed."""
        if self.is_sequence and not self.rate:
            return {
                "copy": "prompts near copies of pre-trained experts, fixed (a = 0)",
                "gate": "gate (joint: prompt mass) fixed (a = 0)",
                "merge": "two prompts side by side, fixed (a = 0)",
            }[self.family]
        fitted = f"L' = L + {self.extra_atoms}" if self.extra_atoms else "L' = L"
        rate = f"a = {Fraction(self.rate)}"
        return {
            "fixed": f"fixed truth, {fitted}",
            "random": f"drawn truth {self.draw + 1}, {fitted}",
            "continuous": f"fixed truth, continuous x, {fitted}",
            "copy": f"prompts drift to copies of pre-trained experts, {rate}",
            "gate": f"gate (joint: prompt mass) falls to 0, {rate}",
            "merge": f"two prompts merge, {rate}",
        }[self.family]

    def problem(self, n: int) -> Problem:
        """The truth at n, with the model that is fitted.

        Raises:
            UsageError: the truth cannot be estimated.
        """
        world, truth, box = self._truth(n)
        num_atoms = len(truth.prompts) + self.extra_atoms
        has_gate = self.gating == "zero-init"
        found = check_truth(world, truth, box, has_gate=has_gate, num_atoms=num_atoms)
        known = truth.alpha if self.knows_alpha else None
        model = Regression(self.gating, world, num_atoms, self.is_linear, known)
        return Problem(world, truth, box, model, () if self.knows_alpha else found)

    def _truth(self, n: int) -> tuple[World, Truth, Box]:
        shrunk = (n / 100) ** -self.rate
        if self.family == "copy":
            copies = copied_experts(WORLD, PAIR.prompts, PAIR.biases)
            moved = replace(PAIR, prompts=PAIR.prompts + 0.6 * shrunk * AWAY)
            return replace(WORLD, pretrained=copies), moved, Box(bias_low=-3.0, bias_high=3.0)
        if self.family == "gate":
            if self.gating == "zero-init":
                return WORLD, replace(PAIR, alpha=float(np.arctanh(0.66 * shrunk))), Box()
            return WORLD, replace(PAIR, biases=PAIR.biases + np.log(shrunk)), Box(bias_low=-4.0)
        if self.family == "merge":
            near = PAIR.prompts[0] + 0.8 * shrunk * MERGING
            return WORLD, replace(PAIR, prompts=np.stack([PAIR.prompts[0], near])), Box()
        if self.family == "random":
            # Any drawn mass can be split in two well inside the box; where one hardly can, the
            # spare prompt has no room and the -1/4 does not show.
            return (*draw_truth(self.draw), Box(bias_low=-2.0))
        return WORLD, TRUTH, Box()


def draw_truth(index: int) -> tuple[World, Truth]:
    """B, C, three prompts and biases, drawn at random by `index`; prompts are at least 1 apart."""
    random = np.random.default_rng([RANDOM_SEED, index])
    while True:
        key, value = random.normal(0, 1, (2, 2, 2))
        prompts, biases = random.uniform(-1.5, 1.5, (3, 2)), random.uniform(-0.5, 0.5, 3)
        gaps = np.linalg.norm(prompts[:, None] - prompts[None], axis=-1) + 9 * np.eye(3)
        smallest = min(np.linalg.svd(m, compute_uv=False)[-1] for m in (key, value))
        if gaps.min() >= 1 and smallest >= 0.6:
            return replace(WORLD, key=key, value=value), Truth(prompts, biases)


def fixed(extras: tuple[int, ...], *, has_nonlinear_joint: bool = False) -> Iterator[Scenario]:
    """The fixed truth for each model, with L' = L + each of `extras`."""
    for extra in extras:
        yield Scenario("fixed", "zero-init", extra_atoms=extra)
        yield Scenario("fixed", "zero-init", is_linear=False, extra_atoms=extra)
        yield Scenario("fixed", "joint", extra_atoms=extra)
        if has_nonlinear_joint:
            yield Scenario("fixed", "joint", is_linear=False, extra_atoms=extra)


def sequences(family: Family, rates: tuple[float, ...]) -> Iterator[Scenario]:
    """A sequence of truths for both models at each rate."""
    for rate in rates:
        yield Scenario(family, "joint", rate=rate)
        yield Scenario(family, "zero-init", rate=rate)
        if family == "merge":
            yield Scenario(family, "zero-init", rate=rate, knows_alpha=True)


def drawn(family: Family, num_draws: int) -> Iterator[Scenario]:
    """Each draw for both models, with as many prompts as there are and with one more."""
    for draw in range(num_draws):
        for extra in (0, 1):
            yield Scenario(family, "zero-init", extra_atoms=extra, draw=draw)
            yield Scenario(family, "joint", extra_atoms=extra, draw=draw)
