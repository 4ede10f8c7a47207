"""The figures of each optimizer step that zbench's own `fit` takes on the card."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from harness.training.loss import ResponseLoss
from harness.training.step import TrainStep
from tests.gpu_rehearsal.card import Card
from tests.gpu_rehearsal.counting import Counts


@dataclass
class Step:
    """One optimizer step: `TrainStep.backward` and `.update`, nothing around them."""

    counts: Counts
    num_tokens: int = 0
    """Tokens of the optimizer batch, of all ranks."""
    passes: list[tuple[int, int]] = field(default_factory=list)
    """Of each forward pass: its positions, and its buckets of attention."""
    wrapped_by: str = ""
    """Class of the module that is trained: ResponseLoss, or what divides it among ranks."""
    live_before: int = 0
    """Bytes alive before the step."""
    peak_bytes: int = 0
    live_bytes: int = 0
    """Bytes alive after the step."""
    at_peak: list[tuple[str, int]] = field(default_factory=list)
    """Bytes by the line that made them, near the peak."""

    def figures(self) -> dict[str, Any]:
        """What is expected of a step, and compared."""
        return {
            **figures_of(self.counts),
            "peak_gb": round(self.peak_bytes / 1e9, 3),
        }


def figures_of(counts: Counts) -> dict[str, Any]:
    """What is expected of a stretch of work, its peak apart."""
    return {
        "launches": counts.launches,
        "ops": counts.ops,
        "syncs": counts.syncs,
        "tflop": round(counts.flops / 1e12, 3),
        "gb_moved": round(counts.bytes_moved / 1e9, 2),
        "attention": counts.attention_kernels,
    }


@dataclass
class RecordedSteps:
    """The steps in their order, and what ran before, between and after them."""

    steps: list[Step] = field(default_factory=list)
    around: Counts = field(default_factory=Counts)
    """Telemetry, checkpoints and the like: all but the steps."""


@contextlib.contextmanager
def recorded_steps(card: Card) -> Iterator[RecordedSteps]:
    """Records the steps of trainings inside; resets the card's counts and its peak at each."""
    recorded = RecordedSteps()
    backward, update, split = TrainStep.backward, TrainStep.update, ResponseLoss.micro_batches
    passes: list[tuple[int, int]] = []

    def noted_split(self: Any, *args: Any, **kwargs: Any) -> Any:
        batches = list(split(self, *args, **kwargs))
        passes.extend(map(_size, batches))
        return iter(batches)

    def counted_backward(self: Any, *args: Any) -> Any:
        recorded.around.update(card.counts)
        step = Step(Counts(), live_before=card.live, wrapped_by=type(self.module).__name__)
        passes.clear()
        card.reset()
        totals = backward(self, *args)
        step.counts, step.num_tokens, step.passes = card.counts, totals.num_tokens, list(passes)
        recorded.steps.append(step)
        card.counts = Counts()
        return totals

    def counted_update(self: Any, *args: Any, **kwargs: Any) -> None:
        recorded.around.update(card.counts)  # telemetry's look at the gradients
        step = recorded.steps[-1]
        card.counts = step.counts
        update(self, *args, **kwargs)
        step.peak_bytes, step.live_bytes = card.peak, card.live
        step.at_peak = card.at_peak.most_common(8)
        card.counts = Counts()

    with (
        mock.patch.object(TrainStep, "backward", counted_backward),
        mock.patch.object(TrainStep, "update", counted_update),
        mock.patch.object(ResponseLoss, "micro_batches", noted_split),
    ):
        yield recorded
    recorded.around.update(card.counts)


def _size(batch: Any) -> tuple[int, int]:
    if hasattr(batch, "packing"):
        return int(batch.num_tokens), len(batch.packing.buckets)
    return int(batch.input_ids_BT.numel()), 1
