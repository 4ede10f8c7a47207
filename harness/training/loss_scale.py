"""Loss scaling for training in fp16 (Micikevicius et al., 2018, arXiv 1710.03740).

Gradients of fp16 activations lose what is under 6e-8 and overflow over 65504. The loss is
multiplied by the largest factor that lets nothing overflow, and the gradients, which are fp32 from
the trained tensors on, are divided by it. torch's own GradScaler decides by a process' own
gradients; here the norm over all ranks decides, so that all of them skip the same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

FIRST_FACTOR = 2.0**16
STEPS_TO_DOUBLE = 2000
"""After so many steps without an overflow a factor twice as large is tried."""


class LossScale:
    """The factor, always a power of two: to multiply by it and to divide again rounds nothing.

    Args:
        enabled: False leaves the factor at 1 and lets no step be skipped.

    Attributes:
        factor: the current factor of the loss.
        skipped_steps: the number of steps so far whose gradients overflowed.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.factor = FIRST_FACTOR if enabled else 1.0
        self.skipped_steps = 0
        self._good_steps = 0

    def divide(self, parameters: Sequence[nn.Parameter]) -> None:
        """Divides the gradients by the factor, in place."""
        if self.enabled:
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_mul_(gradients, 1.0 / self.factor)

    def overflowed(self, gradient_norm: float) -> bool:
        """Whether a step is to be skipped; sets the factor of the next one.

        A gradient that is not finite with a factor of 1 is no overflow of scaling: the run has
        failed then.
        """
        if not self.enabled:
            return False
        if math.isfinite(gradient_norm):
            self._good_steps += 1
            if self._good_steps % STEPS_TO_DOUBLE == 0:
                self.factor *= 2
            return False
        if self.factor <= 1:
            return False
        self.factor, self._good_steps = self.factor / 2, 0
        self.skipped_steps += 1
        return True

    def state(self) -> dict[str, float]:
        """What a resumed run needs to know."""
        return {
            "factor": self.factor,
            "good_steps": self._good_steps,
            "skipped_steps": self.skipped_steps,
        }

    def load_state(self, state: dict[str, float]) -> None:
        """Puts back what `state` returned."""
        self.factor = float(state["factor"])
        self._good_steps = int(state["good_steps"])
        self.skipped_steps = int(state["skipped_steps"])
