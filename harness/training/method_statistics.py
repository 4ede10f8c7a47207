"""Logs the method's own metrics while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.methods.method import PROBE_TEXTS, Method, TelemetryCallback, TrainingHook
from harness.training.callback import Callback, TrainingRun
from harness.training.step import BatchTotals

if TYPE_CHECKING:
    from torch import Tensor, nn

STATISTICS_EVERY = 10
"""Optimizer steps between two readings of a method's statistics: each reading is a
host-device sync. The first and the last step are always read, unless skipped or without labels."""
_HOOK = "hook/"
"""Prefix of the names of a hook's tensors in a checkpoint; stored files fix its value."""


class MethodStatistics(Callback):
    """Logs a method's metrics every STATISTICS_EVERY steps, from its telemetry if that is given.

    Args:
        statistics: the method's `statistics`.
        telemetry: the telemetry that the method's `telemetry` made for the model.
    """

    def __init__(
        self,
        statistics: Callable[[nn.Module], dict[str, float]] | None,
        telemetry: TelemetryCallback | None,
    ) -> None:
        self.statistics, self.telemetry = statistics, telemetry
        self._due = False

    @classmethod
    def of(cls, method: Method, model: nn.Module) -> MethodStatistics:
        """Follows a model that `method` has been applied to."""
        return cls(method.statistics, method.telemetry(model) if method.telemetry else None)

    def on_train_begin(self, training: TrainingRun) -> None:
        if self.telemetry is not None and not training.progress.records:
            _probe(training, self.telemetry.start)

    def on_gradients(self, training: TrainingRun, step: int, totals: BatchTotals) -> None:
        at_ends = step in (1, training.total_steps)
        self._due = (at_ends or step % STATISTICS_EVERY == 0) and not totals.skipped
        if self._due and self.telemetry is not None:
            self.telemetry.observe_gradients()

    def step_metrics(self, training: TrainingRun, step: int) -> Mapping[str, float]:
        if not self._due:
            return {}
        return self._read(training) if self.telemetry is None else self.telemetry.collect(step)

    def on_train_end(self, training: TrainingRun) -> None:
        if self.telemetry is not None:
            _probe(training, self.telemetry.finish)

    def result_metrics(self, training: TrainingRun) -> Mapping[str, float]:
        return self._read(training) if self.telemetry is None else self.telemetry.statistics()

    def failure_note(self, training: TrainingRun) -> str | None:
        # The gates are the one state that is known to diverge with the loss; few methods have any.
        gate = self._read(training).get("gate/max_abs")
        return None if gate is None else f"the largest gate is {gate:.3g}"

    def state(self) -> Mapping[str, Tensor]:
        arrays = {} if self.telemetry is None else self.telemetry.state()
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        if self.telemetry is not None:
            own = {k: v.numpy() for k, v in tensors.items() if not k.startswith(_HOOK)}
            self.telemetry.load_state(own)

    def _read(self, training: TrainingRun) -> dict[str, float]:
        return self.statistics(training.train_step.model) if self.statistics else {}


class HookState(Callback):
    """Begins what a method does between steps, and keeps its state in checkpoints.

    Args:
        hook: the one that `fit` is given.
        tokenizer: the base model's.
    """

    def __init__(self, hook: TrainingHook, tokenizer: Any) -> None:
        self._hook, self._tokenizer = hook, tokenizer

    def on_train_begin(self, training: TrainingRun) -> None:
        if not training.progress.records:
            with torch.no_grad(), training.train_step.autocast():
                self._hook.prepare(self._tokenizer, training.total_steps)

    def state(self) -> Mapping[str, Tensor]:
        return {f"{_HOOK}{name}": value for name, value in self._hook.state().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        own = {k.removeprefix(_HOOK): v for k, v in tensors.items() if k.startswith(_HOOK)}
        self._hook.load_state(own)


def _probe(training: TrainingRun, hook: Callable[[Sequence[Sequence[int]]], None]) -> None:
    """Calls a hook of the telemetry with the token ids of the first examples."""
    with torch.no_grad(), training.train_step.autocast():
        hook([example.token_ids for example in training.examples[:PROBE_TEXTS]])
