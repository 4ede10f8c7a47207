"""A training that is stopped and resumes ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from harness.errors import ModelError, TrainingError
from harness.methods import METHODS
from harness.records.results import TrainResult
from harness.training import signals as interrupts
from harness.training.callback import Callback, OnStep
from harness.training.checkpoint import Checkpoints, checkpoint_folders
from harness.training.loop import fit
from harness.training.loss_watch import LossWatch
from harness.training.method_statistics import MethodStatistics
from harness.training.progress import StepRecord
from harness.training.signals import Stopped, handle_signals
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep
from tests.fixtures.tiny import TRAINED, adapted, random_examples, trained_state
from tests.training.test_checkpoint import full_disk

EXAMPLES = random_examples(22)
IDENTITY = {"cell_id": "c"}


def spec(**changes: object) -> TrainSpec:
    settings = {"learning_rate": 3e-3, "epochs": 4, "batch_size": 8, "weight_decay": 0.02}
    return TrainSpec.model_validate({**settings, "warmup_epochs": 1.0} | changes)


def checkpoints(folder: Path, minutes: float = 10.0, **others: Any) -> Checkpoints:
    return Checkpoints(folder, IDENTITY, minutes=minutes, **others)


def train(
    model: nn.Module,
    kept: Checkpoints | None = None,
    *,
    stop_at: int | None = None,
    records: list[StepRecord] | None = None,
    training: TrainSpec | None = None,
    follow: MethodStatistics | None = None,
    warn: Callable[[str], None] = print,
) -> TrainResult:
    """Trains, from the latest checkpoint where there is one, and is told to stop after a step."""

    def on_step(record: StepRecord) -> None:
        if records is not None:
            records.append(record)
        if record.step == stop_at and kept is not None:
            kept.flags.stop = True

    callbacks: list[Callback] = [OnStep(on_step), LossWatch(warn)]
    return fit(
        model,
        EXAMPLES,
        training or spec(),
        seed=3,
        device="cpu",
        precision="fp32",
        pad_token_id=0,
        callbacks=[*([follow] if follow else []), *callbacks, *([kept] if kept else [])],
        resume=kept.latest() if kept is not None else None,
    )


def measured(result: TrainResult) -> TrainResult:
    """Returns the result without what the clock and the machine say."""
    return replace(result, seconds=0.0, tokens_per_second=0.0, peak_memory_bytes=0)


def followed(name: str, model: nn.Module) -> MethodStatistics:
    """Returns how a cell follows a method's training."""
    return MethodStatistics.of(METHODS[name], model)


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    options = {"dropout": 0.3} if name == "lora" else {}
    whole = adapted(name, **options)
    follow = followed(name, whole)
    told: list[StepRecord] = []
    expected = train(whole, records=told, follow=follow)
    seen: list[StepRecord] = []
    for stop_at in (1, 5, 11):
        model = adapted(name, **options)
        with pytest.raises(Stopped):
            train(model, checkpoints(tmp_path), stop_at=stop_at, follow=followed(name, model))
    resumed = adapted(name, **options)
    again = followed(name, resumed)
    found = train(resumed, checkpoints(tmp_path), records=seen, follow=again)
    assert measured(found) == measured(expected)
    for parameter, value in trained_state(whole).items():
        assert torch.equal(value, trained_state(resumed)[parameter]), parameter
    assert [record.step for record in seen] == [12]
    if follow.telemetry is not None:
        assert again.telemetry is not None
        frames, others = follow.telemetry.frames(), again.telemetry.frames()
        assert list(frames) == list(others)
        for file, frame in frames.items():
            pd.testing.assert_frame_equal(frame, others[file], check_exact=True)


def test_every_step_stands_once_in_the_progress(tmp_path: Path) -> None:
    whole: list[StepRecord] = []
    train(adapted("full"), records=whole)
    for stop_at in (4, 9):
        with pytest.raises(Stopped):
            train(adapted("full"), checkpoints(tmp_path), stop_at=stop_at)
    state = checkpoints(tmp_path).latest()
    assert state is not None
    assert [record.step for record in state.progress.records] == list(range(1, 10))
    assert [record.loss for record in state.progress.records] == [r.loss for r in whole[:9]]


def test_a_kill_between_two_checkpoints_loses_only_the_steps_since(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(record: StepRecord) -> None:
        if record.step == 8:
            raise Killed

    whole, model = adapted("lora"), adapted("lora")
    expected = train(whole)
    kept = checkpoints(tmp_path, minutes=0.0)
    with pytest.raises(Killed):
        fit(
            model, EXAMPLES, spec(), seed=3, device="cpu", precision="fp32", pad_token_id=0,
            callbacks=[OnStep(kill), kept],
        )  # fmt: skip
    assert checkpoint_folders(tmp_path)[0].name == "step-00000007"
    resumed, records = adapted("lora"), []
    found = train(resumed, checkpoints(tmp_path), records=records)
    assert [record.step for record in records] == [8, 9, 10, 11, 12]
    assert measured(found) == measured(expected)
    for parameter, value in trained_state(whole).items():
        assert torch.equal(value, trained_state(resumed)[parameter]), parameter


def test_seconds_count_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    clock, shift = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + shift[0])

    class Slow(list):
        def append(self, record: StepRecord) -> None:
            shift[0] += 100.0

    with pytest.raises(Stopped):
        train(adapted("full"), checkpoints(tmp_path), stop_at=7, records=Slow())
    shift[0] += 5000.0  # between the processes
    records: list[StepRecord] = []
    result = train(adapted("full"), checkpoints(tmp_path), records=records)
    assert 600.0 <= result.seconds < 1000.0
    assert records[0].seconds >= 600.0
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)


def test_a_training_stopped_at_its_last_step_only_needs_to_be_saved(tmp_path: Path) -> None:
    expected = train(adapted("zero-init-linear"))
    with pytest.raises(Stopped):
        train(adapted("zero-init-linear"), checkpoints(tmp_path), stop_at=12)
    records: list[StepRecord] = []
    found = train(adapted("zero-init-linear"), checkpoints(tmp_path), records=records)
    assert records == []
    assert measured(found) == measured(expected)


def test_another_budget_gives_the_same_training_up_to_rounding(tmp_path: Path) -> None:
    whole, resumed = adapted("full"), adapted("full")
    expected = train(whole)
    with pytest.raises(Stopped):
        train(adapted("full"), checkpoints(tmp_path), stop_at=6)
    found = train(resumed, checkpoints(tmp_path), training=spec(token_budget=30))
    assert found.epoch_losses == pytest.approx(expected.epoch_losses, rel=1e-5)
    assert found.tokens == expected.tokens


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_two_steps_behind_a_checkpoint(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with handle_signals() as flags:
            flags.deferred = True
            kept = checkpoints(tmp_path, flags=flags)
            steps: list[StepRecord] = []

            class Sender(list):
                def append(self, record: StepRecord) -> None:
                    steps.append(record)
                    if record.step == 3:
                        os.kill(os.getpid(), number)

            with pytest.raises(Stopped):
                train(adapted("lora"), kept, records=Sender())
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert [record.step for record in steps] == [1, 2, 3]
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000003"]


def test_sigusr1_writes_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    with handle_signals() as flags:
        kept = checkpoints(tmp_path, flags=flags)

        class Sender(list):
            def append(self, record: StepRecord) -> None:
                if record.step == 4:
                    os.kill(os.getpid(), signal.SIGUSR1)

        result = train(adapted("lora"), kept, records=Sender())
    assert result.steps == 12
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000004"]


def test_a_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with handle_signals() as flags:
            flags.deferred = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert flags.stop
            os.kill(os.getpid(), signal.SIGTERM)  # the parent's, beside the scheduler's
            monkeypatch.setattr(interrupts, "SAME_SECONDS", 0.0)
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signal.SIGTERM)
        with handle_signals(), pytest.raises(Stopped):  # nothing runs that would look
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    model = adapted("zero-init-linear", moved=True)
    kept = checkpoints(tmp_path, minutes=0.0)

    class Poison(list):
        def append(self, record: StepRecord) -> None:
            if record.step == 4:
                with torch.no_grad():
                    model.get_output_embeddings().weight[3] = float("nan")  # type: ignore[operator]

    with pytest.raises(TrainingError) as caught:
        train(model, kept, records=Poison(), follow=followed("zero-init-linear", model))
    message = str(caught.value)
    assert message.startswith("step 5: the loss is nan")
    assert "; the largest gate is 0." in message
    assert message.endswith(f"the last good checkpoint is {tmp_path / 'step-00000004'}")


def test_a_loss_that_explodes_is_told_once_and_kept_with_the_result(tmp_path: Path) -> None:
    training = spec(epochs=12, learning_rate=2.0, warmup_epochs=3.0, schedule="constant")
    told: list[str] = []
    result = train(adapted("full"), training=training, warn=told.append)
    (line,) = told
    assert line.startswith("the loss exploded: ")
    assert result.note is not None
    assert result.note.startswith(line)
    # Nor is it told again by the process that goes on.
    kept = checkpoints(tmp_path)
    with pytest.raises(Stopped):
        train(adapted("full"), kept, training=training, warn=told.append, stop_at=35)
    again = train(adapted("full"), checkpoints(tmp_path), training=training, warn=told.append)
    assert told == [line, line]
    assert again.note == result.note


def test_a_full_disk_costs_no_step(tmp_path: Path) -> None:
    told: list[str] = []
    with full_disk():
        found = train(adapted("full"), checkpoints(tmp_path, minutes=0.0, warn=told.append))
    assert measured(found) == measured(train(adapted("full")))
    (line,) = told
    assert "cannot be written" in line
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_model_changes_nothing() -> None:
    def train_step(name: str) -> TrainStep:
        return TrainStep(
            adapted(name), spec(), device=torch.device("cpu"), precision="fp32", pad_token_id=0
        )

    mine = train_step("lora")
    before = trained_state(mine.model)
    with pytest.raises(ModelError, match="not those of this model"):
        mine.load_state(train_step("full").state())
    for name, value in trained_state(mine.model).items():
        assert torch.equal(value, before[name])
