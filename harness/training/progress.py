"""How far a training run is: its steps so far, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.training.step import BatchTotals


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
    """Throughput of this step alone."""
    time_ms: int
    """Unix time in milliseconds."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the callbacks, such as the method's own; empty between two readings."""


@dataclass
class Progress:
    """The totals of the steps so far; it grows with `add`."""

    losses: list[float]
    """Sum over the labels of each epoch."""
    labels: list[int]
    tokens: int = 0
    highest_rate: float = 0.0
    seconds: float = 0.0
    """Wall-clock time of the training loop, over all processes that it ran in."""
    peak_memory_bytes: int = 0
    records: list[StepRecord] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    """Mean loss per label token of the validation rows after each epoch so far, in nats; empty
    without any."""
    attention: str | None = None
    """`varlen` or `buckets`, from the first step to the last; None where sequences are padded, and
    in checkpoints of older versions, which knew buckets alone."""
    norms: str | None = None
    """`fused`; None for the model's own."""
    kernels_note: str | None = None
    """Which kernels of half precision were found to differ, if any."""

    @staticmethod
    def begin(epochs: int) -> Progress:
        """The progress of a run that has taken no step."""
        return Progress(losses=[0.0] * epochs, labels=[0] * epochs)

    @property
    def step(self) -> int:
        """Number of the last step that was taken; 0 before the first."""
        return self.records[-1].step if self.records else 0

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 0) of the lowest validation loss, the first of several, if any."""
        losses = self.validation_losses
        return losses.index(min(losses)) if losses else None

    def add(self, record: StepRecord, totals: BatchTotals) -> None:
        """Counts one more step."""
        self.losses[record.epoch] += totals.loss_sum
        self.labels[record.epoch] += totals.num_labels
        self.tokens += totals.num_tokens
        self.highest_rate = max(self.highest_rate, record.learning_rate)
        self.seconds = record.seconds
        self.records.append(record)

    def copy(self) -> Progress:
        """A copy that further steps do not change."""
        return replace(
            self,
            losses=[*self.losses],
            labels=[*self.labels],
            records=[*self.records],
            validation_losses=[*self.validation_losses],
        )

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Progress:
        """From its fields as JSON, which floats survive to the last bit."""
        return Progress(**{**raw, "records": [StepRecord(**record) for record in raw["records"]]})
