"""Callbacks of the training loop, and the training as they see it."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.training.progress import Progress, StepRecord
from harness.training.step import BatchTotals, TrainStep

if TYPE_CHECKING:
    from torch import Tensor

    from harness.data.instructions import Example

CALLBACK_STATE = "trace/"
"""Prefix of the names of the callbacks' tensors in a checkpoint."""


class Callback:
    """Follows a training; every hook does nothing unless it is overridden.

    `fit` calls each hook of all callbacks in the order in which it was given them. A hook that
    raises ends the training. All ranks of a cell have the same callbacks.
    """

    def on_train_begin(self, training: Training) -> None:
        """Called before the first step here, in evaluation mode; not in the measured time."""

    def on_gradients(self, training: Training, step: int, totals: BatchTotals) -> None:
        """Called with the gradients that the optimizer is about to take, clipped."""

    def step_figures(self, training: Training, step: int) -> Mapping[str, float]:
        """Figures for the record of a step that the optimizer has just taken."""
        return {}

    def on_step(self, training: Training, record: StepRecord) -> None:
        """Called after a step, which is part of `training.progress` by then."""

    def on_train_end(self, training: Training) -> None:
        """Called after the last step, in evaluation mode; not in the measured time."""

    def result_figures(self, training: Training) -> Mapping[str, float]:
        """Figures for the result of the training."""
        return {}

    def failure_note(self, training: Training) -> str | None:
        """A clause for the message of a training whose loss is not finite."""
        return None

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint keeps of it; names differ between callbacks."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave; the states of the other callbacks are in it too."""


class OnStep(Callback):
    """Calls a function after every step."""

    def __init__(self, function: Callable[[StepRecord], object]) -> None:
        self.function = function

    def on_step(self, training: Training, record: StepRecord) -> None:
        self.function(record)


@dataclass
class Training:
    """A training as its callbacks see it."""

    train_step: TrainStep
    examples: Sequence[Example]
    progress: Progress
    callbacks: tuple[Callback, ...]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.train_step.spec.total_steps(len(self.examples))

    @property
    def peak_memory_bytes(self) -> int:
        """Peak of torch's allocator on CUDA, else of the process' resident set.

        That of the training's earlier processes counts too.
        """
        device = self.train_step.device
        if device.type == "cuda":
            peak = int(torch.cuda.max_memory_allocated(device))
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak = peak if sys.platform == "darwin" else 1024 * peak
        return max(peak, self.progress.peak_memory_bytes)

    def result_figures(self) -> dict[str, float]:
        """Figures of all callbacks and of the training step itself, the finite ones.

        A result is JSON, which has finite numbers only; a figure is no reason to lose a training.
        """
        sources: Iterable[Mapping[str, float]] = [
            *(callback.result_figures(self) for callback in self.callbacks),
            self.train_step.figures(),
        ]
        return {k: v for source in sources for k, v in source.items() if math.isfinite(v)}

    def state(self) -> dict[str, Tensor]:
        """A copy of the tensors of a checkpoint, on the CPU of rank 0; all ranks call it."""
        followed = {k: v for callback in self.callbacks for k, v in callback.state().items()}
        return self.train_step.state() | {f"{CALLBACK_STATE}{k}": v for k, v in followed.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights, optimizer and callbacks back to where `state` was taken.

        Raises:
            ModelError: the state is another model's.
        """
        own = {k: v for k, v in tensors.items() if not k.startswith(CALLBACK_STATE)}
        followed = {k.removeprefix(CALLBACK_STATE): v for k, v in tensors.items() if k not in own}
        self.train_step.load_state(own)
        for callback in self.callbacks:
            callback.load_state(followed)
