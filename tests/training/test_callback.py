"""Callbacks: their order around a training, the metrics that they add, the state that they keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from harness.training.callback import Callback, TrainingRun
from harness.training.checkpoint import Checkpoints
from harness.training.loop import fit
from harness.training.progress import StepRecord
from harness.training.signals import SignalFlags, Stopped
from harness.training.step import BatchTotals
from tests.fixtures.tiny import adapted
from tests.training.test_loop import EXAMPLES, spec


class Counter(Callback):
    """Counts the steps of the whole training, and logs its calls and what the model is then."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.steps = name, log, 0

    def _add(self, call: str, training: TrainingRun, step: int = 0) -> None:
        parameter = next(p for p in training.train_step.parameters)
        assert (parameter.grad is not None) == (call == "gradients")
        assert training.train_step.model.training == (call not in ("begin", "end"))
        assert training.progress.step == (step - 1 if call in ("gradients", "metrics") else step)
        self.log.append(f"{self.name} {call} {step}")

    def on_train_begin(self, training: TrainingRun) -> None:
        self._add("begin", training, training.progress.step)

    def on_gradients(self, training: TrainingRun, step: int, totals: BatchTotals) -> None:
        self._add("gradients", training, step)

    def step_metrics(self, training: TrainingRun, step: int) -> Mapping[str, float]:
        self._add("metrics", training, step)
        self.steps += 1
        return {f"{self.name}/steps": float(self.steps)}

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        self._add("step", training, record.step)

    def on_train_end(self, training: TrainingRun) -> None:
        self._add("end", training, training.progress.step)

    def result_metrics(self, training: TrainingRun) -> Mapping[str, float]:
        return {f"{self.name}/steps": float(self.steps), f"{self.name}/no number": float("nan")}

    def state(self) -> Mapping[str, torch.Tensor]:
        return {f"{self.name}/steps": torch.tensor(self.steps)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.steps = int(tensors[f"{self.name}/steps"])


class Stop(Callback):
    """Asks for a stop after a step."""

    def __init__(self, step: int, flags: SignalFlags) -> None:
        self.step, self.flags = step, flags

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        self.flags.stop = record.step == self.step


def test_callbacks_are_called_in_order_and_resume_with_their_state(tmp_path: Path) -> None:
    def checkpoints(flags: SignalFlags) -> Checkpoints:
        return Checkpoints(tmp_path, {}, minutes=10.0, flags=flags)

    training = {"seed": 0, "device": "cpu", "precision": "fp32", "pad_token_id": 0}
    log: list[str] = []
    flags = SignalFlags()
    first = [Counter("a", log), Counter("b", log), Stop(2, flags), checkpoints(flags)]
    with pytest.raises(Stopped):
        fit(adapted("lora"), EXAMPLES, spec(epochs=1), callbacks=first, **training)
    both = [Counter("a", log), Counter("b", log)]
    state = checkpoints(SignalFlags()).latest()
    result = fit(
        adapted("lora"), EXAMPLES, spec(epochs=1), callbacks=both, resume=state, **training
    )
    calls = ["begin 0"]
    for step in (1, 2):
        calls += [f"gradients {step}", f"metrics {step}", f"step {step}"]
    calls += ["begin 2", "gradients 3", "metrics 3", "step 3", "end 3"]
    assert log == [f"{name} {call}" for call in calls for name in "ab"]
    assert result.final_statistics == {"a/steps": 3.0, "b/steps": 3.0}
    assert state is not None
    assert [dict(record.statistics) for record in state.progress.records] == [
        {"a/steps": float(step), "b/steps": float(step)} for step in (1, 2, 3)
    ]


def test_callbacks_that_would_overwrite_each_others_state_are_refused(tmp_path: Path) -> None:
    same = [Counter("a", []), Counter("a", []), Checkpoints(tmp_path, {}, minutes=0.0)]
    with pytest.raises(AssertionError, match="two callbacks use one name in a checkpoint"):
        fit(
            *(adapted("lora"), EXAMPLES, spec(epochs=1)),
            **{"seed": 0, "device": "cpu", "precision": "fp32", "pad_token_id": 0},
            callbacks=same,
        )
