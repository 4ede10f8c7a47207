"""Checkpoints: whole or absent, of this run, the older where the newer is damaged."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harness.errors import StorageError, TrainingError
from harness.training.checkpoint import (
    RECORD_FILE,
    TENSORS_FILE,
    Action,
    Checkpoints,
    TrainingState,
    checkpoint_folders,
    read_checkpoint,
    save_checkpoint,
)
from harness.training.progress import Progress, StepRecord
from harness.training.signals import SignalFlags
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep
from tests.fixtures.tiny import adapted, random_examples

IDENTITY = {"cell_id": "0123456789ab", "data_sha256": "d", "base.commit": None}


def state_at(step: int, size: int = 3) -> TrainingState:
    record = StepRecord(step, 0, 1 / 3, 1e-3, 10, 0.1 + step, 7.0, 1000, {"gate/max_abs": 0.1})
    progress = Progress([2.1, 0.0], [7, 0], 10, 1e-3, 0.1 + step, 99, [record])
    return TrainingState(progress, {"parameter/a": torch.full((size,), float(step)).div(3)})


def checkpoints(folder: Path, told: list[str], minutes: float = 10.0) -> Checkpoints:
    return Checkpoints(folder, IDENTITY, minutes=minutes, flags=SignalFlags(), warn=told.append)


def steps(folder: Path) -> list[int]:
    return [int(found.name[5:]) for found in checkpoint_folders(folder)]


def test_a_state_survives_its_files_to_the_last_bit(tmp_path: Path) -> None:
    state = state_at(12)
    found = read_checkpoint(save_checkpoint(tmp_path, state, IDENTITY), IDENTITY)
    assert found.progress == state.progress
    assert found.progress.step == 12
    assert torch.equal(found.tensors["parameter/a"], state.tensors["parameter/a"])


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for step in (5, 10, 100, 1000):
        save_checkpoint(tmp_path, state_at(step), IDENTITY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000100", "step-00001000"]


def truncate(name: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        place = content.rindex(b"7.0") if name == RECORD_FILE else len(content) - 1
        content[place] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


def lose(folder: Path) -> None:
    (folder / TENSORS_FILE).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: None if (folder / name).write_text(text) else None


def belong_to(key: str) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        step = int(folder.name[5:])
        save_checkpoint(folder.parent, state_at(step), {**IDENTITY, key: "another"})

    return rewrite


def into_a_pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate(TENSORS_FILE), "damaged or incomplete"),
        (truncate(RECORD_FILE), "damaged or incomplete"),
        (flip(TENSORS_FILE), "its SHA-256 is another"),
        (flip(RECORD_FILE), "its SHA-256 is another"),
        (lose, "damaged or incomplete"),
        (into_a_pipe(TENSORS_FILE), "no regular file"),
        (into_a_pipe(RECORD_FILE), "no regular file"),
        (write(RECORD_FILE, "[" * 100_000), "nested too deeply"),
        (write(RECORD_FILE, "[]"), "damaged or incomplete"),
        (write(RECORD_FILE, '{"content": 5, "sha256": 5}'), "its SHA-256 is another"),
        (belong_to("cell_id"), "of another training run (cell_id was another, is 0123456789ab)"),
        (belong_to("data_sha256"), "of another training run (data_sha256 was another, is d)"),
        (belong_to("base.commit"), "of another training run (base.commit was another, is None)"),
    ],
)
def test_a_checkpoint_that_is_not_good_is_told_of_and_the_older_one_used(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, state_at(step), IDENTITY)
    damage(tmp_path / "step-00000010")
    told: list[str] = []
    mine = checkpoints(tmp_path, told)
    found = mine.latest()
    assert found is not None
    assert found.progress.step == 5
    assert mine.last == tmp_path / "step-00000005"
    (line,) = told
    assert said in line
    assert "step-00000010" in line
    assert line.endswith("; the one before is used")
    assert "\n" not in line
    # The training takes the steps again, and its own checkpoint is not lost to the damaged one.
    mine.save(state_at(7), wait=True)
    assert steps(tmp_path) == [7, 5]


def test_what_is_no_checkpoint_is_told_of_and_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(5), IDENTITY)
    for name in ("step-abc", "step-", "step-1e3", "step--0000009"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000099").write_text("no folder")
    told: list[str] = []
    found = checkpoints(tmp_path, told).latest()
    assert found is not None
    assert found.progress.step == 5
    assert len(told) == 5
    assert all("no checkpoint has this name, or it is no folder" in line for line in told)
    save_checkpoint(tmp_path, state_at(6), IDENTITY)
    assert (tmp_path / "step-abc").is_dir()


def test_where_none_is_good_the_training_begins_again(tmp_path: Path) -> None:
    for step in (5, 10):
        lose(save_checkpoint(tmp_path, state_at(step), IDENTITY))
    told: list[str] = []
    assert checkpoints(tmp_path, told).latest() is None
    assert len(told) == 2
    assert told[1].endswith("none is left: training begins again")


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".aside-x").mkdir()
    (tmp_path / ".aside-x" / TENSORS_FILE).write_bytes(b"half")
    told: list[str] = []
    assert checkpoints(tmp_path, told).latest() is None
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_other_versions_are_told_of_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training import checkpoint as training_checkpoint

    with monkeypatch.context() as then:
        then.setattr(training_checkpoint, "package_versions", lambda: {"torch": "1.0"})
        folder = save_checkpoint(tmp_path, state_at(5), IDENTITY)
    assert read_checkpoint(folder, IDENTITY).progress.step == 5
    assert "torch 1.0, now " in caplog.text


@contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file of this process grow beyond 64 KiB, the test run's own output included."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_last_good_one_and_warns_once(tmp_path: Path) -> None:
    told: list[str] = []
    mine = checkpoints(tmp_path, told)
    mine.save(state_at(5), wait=True)
    with full_disk():
        for step in (10, 15):
            mine.save(state_at(step, size=100_000), wait=True)
        with pytest.raises(StorageError):
            save_checkpoint(tmp_path, state_at(20, size=100_000), IDENTITY)
    (line,) = told
    assert "cannot be written" in line
    assert line.endswith("and training continues")
    assert str(tmp_path / "step-00000005") in line
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    mine.save(state_at(20, size=100_000), wait=True)
    assert steps(tmp_path) == [20, 5]
    assert len(told) == 1


def test_a_checkpoint_is_due_by_the_clock_and_by_signals(tmp_path: Path) -> None:
    told: list[str] = []
    slow, always = checkpoints(tmp_path, told), checkpoints(tmp_path, told, minutes=0.0)
    assert slow.due_action() == Action.CONTINUE
    assert always.due_action() == Action.SAVE
    slow.flags.save = True
    assert slow.due_action() == Action.SAVE
    slow.save(state_at(1), wait=True)
    assert slow.due_action() == Action.CONTINUE
    slow.flags.stop = True
    assert slow.due_action() == Action.STOP


def test_what_is_written_beside_the_training_is_of_the_step_it_was_due_at(tmp_path: Path) -> None:
    told: list[str] = []
    train_step = TrainStep(
        adapted("full"), TrainSpec(learning_rate=1e-2), device=torch.device("cpu"),
        precision="fp32", pad_token_id=0,
    )  # fmt: skip
    train_step.backward(random_examples(2), 0)
    train_step.update(1e-2)
    mine, state = (
        checkpoints(tmp_path, told),
        TrainingState(state_at(5).progress, train_step.state()),
    )
    expected = {name: tensor.clone() for name, tensor in state.tensors.items()}
    mine.save(state)
    train_step.backward(random_examples(2), 0)  # the training continues
    train_step.update(1e-2)
    state.progress.records.append(state.progress.records[0])
    mine.wait()
    assert mine.last == tmp_path / "step-00000005"
    found = mine.latest()
    assert found is not None
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.items())
    assert any(not torch.equal(train_step.state()[name], value) for name, value in expected.items())
    assert len(found.progress.records) == 1


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, state_at(5), IDENTITY)
    content = json.loads((folder / RECORD_FILE).read_text())["content"]
    assert content["identity"] == IDENTITY
    assert content["versions"]["torch"]
    assert sorted(path.name for path in folder.iterdir()) == [RECORD_FILE, TENSORS_FILE]


def test_a_checkpoint_of_another_format_is_left_out(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, state_at(5), IDENTITY)
    record = json.loads((folder / RECORD_FILE).read_text())
    record["content"]["format"] = 0
    (folder / RECORD_FILE).write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="damaged or incomplete"):
        read_checkpoint(folder, IDENTITY)
