"""Ends a training after some of its epochs, with a checkpoint, so that it can be resumed later."""

from __future__ import annotations

from harness.training.callback import Callback, TrainingRun
from harness.training.progress import StepRecord
from harness.training.signals import Paused, SignalFlags


class Pause(Callback):
    """Asks for a checkpoint and the end of the run once enough epochs are validated.

    Its place is before the checkpoints, which end the run.

    Args:
        epochs: after how many of them.
        flags: where it asks.
    """

    def __init__(self, epochs: int, flags: SignalFlags) -> None:
        self.epochs, self.flags = epochs, flags

    def on_train_begin(self, training: TrainingRun) -> None:
        if len(training.progress.validation_losses) >= self.epochs:
            raise Paused  # its checkpoint is there already

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        self.flags.pause = len(training.progress.validation_losses) >= self.epochs
