"""A method's metrics are read at chosen steps, its telemetry called in a fixed order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from harness.methods import METHODS
from harness.methods.method import PROBE_TEXTS
from harness.training.method_statistics import STATISTICS_EVERY
from harness.training.progress import StepRecord
from tests.fixtures.tiny import adapted
from tests.training.test_loop import EXAMPLES, spec, train


def test_statistics_are_read_now_and_then_and_at_the_end() -> None:
    records: list[StepRecord] = []
    method = METHODS["zero-init-linear"]
    training = spec(epochs=4, warmup_epochs=1.0)
    model = adapted(method.name)
    result = train(model, training, statistics=method.statistics, on_step=records.append)
    read = [record.step for record in records if record.statistics]
    assert read == [1, STATISTICS_EVERY, 12]
    assert records[0].statistics["gate/max_abs"] == 0.0  # the first rate of a warm-up is zero
    assert records[-1].statistics == result.final_statistics
    assert result.final_statistics["gate/max_abs"] > 1e-3


class CallLog:
    """Telemetry that writes down what it was called for, and in which state the model was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[object, ...]] = []
        self.clock = 0.0

    def start(self, token_ids: Sequence[Sequence[int]]) -> None:
        self._look("before", token_ids)

    def finish(self, token_ids: Sequence[Sequence[int]]) -> None:
        self._look("after", token_ids)

    def _look(self, when: str, token_ids: Sequence[Sequence[int]]) -> None:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.clock += 1000.0
        self.calls.append((when, [tuple(ids) for ids in token_ids]))

    def observe_gradients(self) -> None:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.calls.append(("gradients", all(p.grad is not None for p in trained)))

    def collect(self, step: int) -> dict[str, float]:
        self.calls.append(("step", step))
        return {"a": float(step)}

    def statistics(self) -> dict[str, float]:
        return {"b": 2.0}

    def frames(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, arrays: object) -> None:
        raise AssertionError("nothing is resumed here")


def test_telemetry_is_called_around_the_training_and_at_the_steps_that_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = adapted("lora")
    model.train()
    log, records = CallLog(model), []
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + log.clock)
    training = spec(epochs=4)
    result = train(
        model, training, telemetry=log, statistics=lambda model: {}, on_step=records.append
    )
    texts = [example.token_ids for example in EXAMPLES[:PROBE_TEXTS]]
    steps = [call for step in (1, 10, 12) for call in (("gradients", True), ("step", step))]
    assert log.calls == [("before", texts), *steps, ("after", texts)]
    read = {record.step: record.statistics for record in records if record.statistics}
    assert read == {1: {"a": 1.0}, 10: {"a": 10.0}, 12: {"a": 12.0}}
    assert result.final_statistics == {"b": 2.0}
    assert result.seconds < 1000.0  # of the training, not of the probes
