"""How far a training is: what its steps added up to, and whether its loss has exploded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.training.step import BatchTotals

WINDOW_STEPS = 10
"""Optimizer steps whose mean loss is looked at: one batch alone may be a hard one."""
EXPLOSION_RATIO = 2.0
"""A loss has exploded when a window's mean is more than this times the first step's loss, and more
than that of the window before. The first step's loss is that of weights that nothing has moved."""


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step."""

    step: int
    """From 1."""
    epoch: int
    """From 0."""
    loss: float
    """Mean per label token of the optimizer batch, in nats."""
    learning_rate: float
    tokens: int
    """Real tokens, padding not counted."""
    seconds: float
    """Since training began; time between a checkpoint and the loss of its process not counted."""
    tokens_per_second: float
    """Of this step."""
    time_ms: int
    """Unix time in milliseconds."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """The method's own; empty in the steps between two readings."""


@dataclass
class Progress:
    """What the steps so far came to; it grows with `add`."""

    losses: list[float]
    """Sum over the labels of each epoch."""
    labels: list[int]
    tokens: int = 0
    highest_rate: float = 0.0
    seconds: float = 0.0
    """Wall-clock time of the training loop, over all processes that it ran in."""
    peak_memory_bytes: int = 0
    records: list[StepRecord] = field(default_factory=list)

    @staticmethod
    def begin(epochs: int) -> Progress:
        """Returns the progress of a training that has taken no step."""
        return Progress(losses=[0.0] * epochs, labels=[0] * epochs)

    @property
    def step(self) -> int:
        """The last step that was taken; 0 before the first."""
        return self.records[-1].step if self.records else 0

    def add(self, record: StepRecord, totals: BatchTotals) -> None:
        """Counts one more step."""
        self.losses[record.epoch] += totals.loss
        self.labels[record.epoch] += totals.labels
        self.tokens += totals.tokens
        self.highest_rate = max(self.highest_rate, record.learning_rate)
        self.seconds = record.seconds
        self.records.append(record)

    def explosion(self) -> str | None:
        """Returns what is wrong when the window of steps that has just ended shows it, else None.

        The rule is that of EXPLOSION_RATIO.
        """
        if len(self.records) % WINDOW_STEPS:
            return None
        return _explosion(self.records, len(self.records))

    def note(self) -> str | None:
        """Returns what a reader of the result must know: the first explosion, and how it ended."""
        ends = range(WINDOW_STEPS, len(self.records) + 1, WINDOW_STEPS)
        told = next((text for end in ends if (text := _explosion(self.records, end))), None)
        if told is None:
            return None
        return f"{told}; the training ended at {_mean(self.records[-WINDOW_STEPS:]):.4g}"

    def copy(self) -> Progress:
        """Returns what further steps do not change."""
        lists = {"losses": [*self.losses], "labels": [*self.labels], "records": [*self.records]}
        return Progress(**{**vars(self), **lists})

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; floats survive JSON to the last bit."""
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Progress:
        """Returns what `to_json` was made from."""
        return Progress(**{**raw, "records": [StepRecord(**record) for record in raw["records"]]})


def _explosion(records: list[StepRecord], end: int) -> str | None:
    """Returns what the window of steps before `end` shows."""
    window = records[end - WINDOW_STEPS : end]
    before = records[max(0, end - 2 * WINDOW_STEPS) : end - WINDOW_STEPS] or records[:1]
    first, mean = records[0].loss, _mean(window)
    if not (mean > EXPLOSION_RATIO * first and mean > _mean(before)):
        return None
    return (
        f"the loss exploded: {mean:.4g} in steps {window[0].step} to {window[-1].step}, "
        f"{first:.4g} in the first; lower the learning rate or set max_gradient_norm"
    )


def _mean(records: list[StepRecord]) -> float:
    return sum(record.loss for record in records) / len(records)
