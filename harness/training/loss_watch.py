"""Detects a loss that explodes, and warns of it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.training.callback import Callback, TrainingRun
from harness.training.progress import StepRecord

WINDOW_STEPS = 10
"""Optimizer steps whose mean loss is looked at: one batch alone may be a hard one."""
EXPLOSION_RATIO = 2.0
"""A loss has exploded when a window's mean is more than this times the first step's loss, and more
than that of the window before. The first step's loss is that of weights that nothing has moved."""


class LossWatch(Callback):
    """Warns once when the loss explodes; a resumed run does not warn again."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warned = False

    def on_train_begin(self, training: TrainingRun) -> None:
        self._warned = explosion_note(training.progress.records) is not None

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        if not self._warned and (message := explosion(training.progress.records)):
            self._warned = True
            self._warn(message)


def explosion(records: Sequence[StepRecord]) -> str | None:
    """What is wrong when the window of steps that has just ended shows an explosion."""
    if not records or len(records) % WINDOW_STEPS:
        return None
    window = records[-WINDOW_STEPS:]
    before = records[-2 * WINDOW_STEPS : -WINDOW_STEPS] or records[:1]
    first, mean = records[0].loss, _mean(window)
    if not (mean > EXPLOSION_RATIO * first and mean > _mean(before)):
        return None
    return (
        f"the loss exploded: {mean:.4g} in steps {window[0].step} to {window[-1].step}, "
        f"{first:.4g} in the first; lower the learning rate or set max_gradient_norm"
    )


def explosion_note(records: Sequence[StepRecord]) -> str | None:
    """What a reader of the result must know: the first explosion, and how the run ended."""
    ends = range(WINDOW_STEPS, len(records) + 1, WINDOW_STEPS)
    message = next((text for end in ends if (text := explosion(records[:end]))), None)
    if message is None:
        return None
    return f"{message}; the training ended at {_mean(records[-WINDOW_STEPS:]):.4g}"


def _mean(records: Sequence[StepRecord]) -> float:
    return sum(record.loss for record in records) / len(records)
