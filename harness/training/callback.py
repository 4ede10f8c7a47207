"""Callbacks of the training loop, and the training run as they see it."""

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

CALLBACK_STATE_PREFIX = "trace/"
"""Prefix of the names of the callbacks' tensors in a checkpoint; stored files fix its value."""


class Callback:
    """Follows a training run; every hook does nothing unless it is overridden.

    The hooks are those of transformers' TrainerCallback where both have them: `on_gradients` is its
    `on_pre_optimizer_step`, `on_step` its `on_step_end`. `fit` calls each hook of all callbacks in
    the order in which it was given them. A hook that raises ends the run: `Checkpoints` raises
    Stopped in `on_step`, so that it comes last. All ranks of a cell have the same callbacks.
    """

    def on_train_begin(self, training: TrainingRun) -> None:
        """Called before the process' first step (again after a resume), in eval mode, untimed."""

    def on_gradients(self, training: TrainingRun, step: int, totals: BatchTotals) -> None:
        """Called after backward, unscaling and clipping (if any), before the optimizer step.

        Also called on a skipped step, see `totals.skipped`.
        """

    def step_metrics(self, training: TrainingRun, step: int) -> Mapping[str, float]:
        """Metrics for the record of a step that the optimizer has just taken."""
        return {}

    def on_epoch(self, training: TrainingRun, epoch: int) -> None:
        """Called after the last step of an epoch (from 0), before its `on_step`, untimed."""

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        """Called after a step, which is part of `training.progress` by then."""

    def on_train_end(self, training: TrainingRun) -> None:
        """Called after the last step, in eval mode, untimed."""

    def result_metrics(self, training: TrainingRun) -> Mapping[str, float]:
        """Metrics for the result of the training run."""
        return {}

    def failure_note(self, training: TrainingRun) -> str | None:
        """A clause for the message of a run whose loss is not finite."""
        return None

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint keeps of it, by names that no other callback uses."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave; the states of the other callbacks are in it too."""


class OnStep(Callback):
    """Calls a function after every step."""

    def __init__(self, function: Callable[[StepRecord], object]) -> None:
        self.function = function

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        self.function(record)


@dataclass
class TrainingRun:
    """A training run as its callbacks see it."""

    train_step: TrainStep
    examples: Sequence[Example]
    progress: Progress
    callbacks: tuple[Callback, ...]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.train_step.spec.total_steps(len(self.examples))

    @property
    def num_epochs(self) -> int:
        """Passes over the examples, a last one that is cut included."""
        return self.train_step.spec.num_epochs(len(self.examples))

    @property
    def peak_memory_bytes(self) -> int:
        """Peak of torch's allocator on CUDA, else of the resident set, in bytes.

        It is the maximum over this process and the run's earlier ones, before a resume.
        """
        device = self.train_step.device
        if device.type == "cuda":
            peak = int(torch.cuda.max_memory_allocated(device))
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak = peak if sys.platform == "darwin" else 1024 * peak
        return max(peak, self.progress.peak_memory_bytes)

    def result_metrics(self) -> dict[str, float]:
        """Metrics of all callbacks and of the training step; non-finite ones are dropped.

        JSON has none, and a metric is no reason to lose a training run.
        """
        sources: Iterable[Mapping[str, float]] = [
            *(callback.result_metrics(self) for callback in self.callbacks),
            self.train_step.metrics(),
        ]
        return {k: v for source in sources for k, v in source.items() if math.isfinite(v)}

    def state(self) -> dict[str, Tensor]:
        """A copy of the tensors of a checkpoint, on the CPU of rank 0; all ranks call it."""
        states = [callback.state() for callback in self.callbacks]
        followed = {f"{CALLBACK_STATE_PREFIX}{k}": v for state in states for k, v in state.items()}
        assert len(followed) == sum(map(len, states)), "two callbacks use one name in a checkpoint"
        return self.train_step.state() | followed

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts weights, optimizer and callbacks back to where `state` was taken.

        Raises:
            ModelError: the state is another model's.
        """
        own = {k: v for k, v in tensors.items() if not k.startswith(CALLBACK_STATE_PREFIX)}
        followed = {
            k.removeprefix(CALLBACK_STATE_PREFIX): v for k, v in tensors.items() if k not in own
        }
        self.train_step.load_state(own)
        for callback in self.callbacks:
            callback.load_state(followed)
