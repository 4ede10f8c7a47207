"""The validation loss against its formula, and the epoch whose weights are kept; through kills."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.data.instructions import Example
from harness.errors import TrainingError
from harness.records.checkpoints import best_files
from harness.records.results import TrainResult
from harness.training.callback import Callback, OnStep
from harness.training.checkpoint import Checkpoints
from harness.training.loop import fit
from harness.training.parallel import gather_trained
from harness.training.signals import Stopped
from harness.training.spec import TrainSpec
from harness.training.validation import Validation
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import TRAINED, adapted, random_examples, trained_state

EXAMPLES = random_examples(22)
HELD_OUT = [*random_examples(9, seed=7), Example(tuple(range(8)), 8)]
"""The last has no label."""
OVERFITS: dict[str, object] = {"learning_rate": 0.01, "schedule": "constant"}
"""A rate at which the loss on other random rows rises soon."""


def spec(**changes: object) -> TrainSpec:
    settings = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 8, "weight_decay": 0.02}
    return TrainSpec.model_validate(settings | changes)


def train(
    model: nn.Module,
    validation: Validation | None,
    *,
    folder: Path | None = None,
    stop_at: int | None = None,
    **changes: object,
) -> TrainResult:
    """Trains, from the folder's latest checkpoint if there is one; a stop leaves one behind."""
    kept = None if folder is None else Checkpoints(folder, {"cell_id": "c"}, minutes=10)

    def on_step(record: Any) -> None:
        if kept is not None and record.step == stop_at:
            kept.flags.stop = True

    followers: list[Callback] = [] if validation is None else [validation]
    return fit(
        model,
        EXAMPLES,
        spec(**changes),
        seed=3,
        device="cpu",
        precision="fp32",
        pad_token_id=0,
        callbacks=[*followers, OnStep(on_step), *([kept] if kept else [])],
        resume=kept.latest() if kept else None,
    )


def reference_loss(model: nn.Module, examples: list[Example]) -> float:
    """Each example by itself, through the model's own forward."""
    total, count = 0.0, 0
    with torch.no_grad():
        for example in examples:
            if example.num_labels:
                ids = torch.tensor([example.token_ids])
                logits = model(input_ids=ids).logits[0, -ids.shape[1] :]  # after virtual tokens
                logits = logits[example.num_prompt_tokens - 1 : -1]
                labels = ids[0, example.num_prompt_tokens :]
                total += float(functional.cross_entropy(logits, labels, reduction="sum"))
                count += example.num_labels
    return total / count


def same(result: TrainResult) -> TrainResult:
    return replace(result, seconds=0.0, tokens_per_second=0.0, peak_memory_bytes=0)


@pytest.mark.parametrize("name", ["lora", "zero-init-linear", "prompt-tuning", "full"])
def test_the_loss_is_the_mean_over_labels_in_evaluation_mode(name: str) -> None:
    model = adapted(name, **({"dropout": 0.3} if name == "lora" else {}))
    result = train(model, Validation(HELD_OUT))
    assert len(result.validation_losses) == 3
    expected = reference_loss(model, HELD_OUT)
    assert result.validation_losses[-1] == pytest.approx(expected, rel=1e-5)


def test_validation_leaves_the_training_as_it_is() -> None:
    without, beside = adapted("lora", dropout=0.3), adapted("lora", dropout=0.3)
    first, second = train(without, None), train(beside, Validation(HELD_OUT))
    assert first.epoch_losses == second.epoch_losses
    for name, value in trained_state(without).items():
        assert torch.equal(value, trained_state(beside)[name]), name
    assert first.validation_losses == ()


def test_the_losses_are_told_epoch_by_epoch() -> None:
    told: list[tuple[int, float, bool]] = []
    result = train(adapted("lora"), Validation(HELD_OUT, on_loss=lambda *one: told.append(one)))
    assert told == [(epoch, loss, False) for epoch, loss in enumerate(result.validation_losses)]


@pytest.mark.parametrize("name", ["lora", "full"])
def test_the_best_epoch_is_kept_through_kills(name: str, tmp_path: Path) -> None:
    changes = OVERFITS | {"epochs": 5}
    whole = adapted(name, moved=True)
    result = train(whole, Validation(HELD_OUT, keep=tmp_path / "a"), **changes)
    losses = result.validation_losses
    best = losses.index(min(losses))
    assert best < 4
    # What is left in the model has the lowest loss, not the last.
    assert reference_loss(whole, HELD_OUT) == pytest.approx(losses[best], rel=1e-5)
    assert reference_loss(whole, HELD_OUT) < losses[-1]
    for stop_at in (2, 4, 9, 14):  # in the first epoch, in the second, at the end of the third
        with pytest.raises(Stopped):
            train(
                adapted(name, moved=True), Validation(HELD_OUT, keep=tmp_path / "b"),
                folder=tmp_path / "b", stop_at=stop_at, **changes,
            )  # fmt: skip
    resumed, told = adapted(name, moved=True), []
    last = Validation(HELD_OUT, keep=tmp_path / "b", on_loss=lambda *one: told.append(one))
    found = train(resumed, last, folder=tmp_path / "b", **changes)
    assert same(found) == same(result)
    assert told == [(epoch, loss, epoch < 4) for epoch, loss in enumerate(losses)]
    for parameter, value in trained_state(whole).items():
        assert torch.equal(value, trained_state(resumed)[parameter]), parameter


def test_a_cut_pass_is_validated_and_resumed_as_a_whole_one(tmp_path: Path) -> None:
    changes = OVERFITS | {"epochs": None, "max_steps": 13}  # four passes of three steps, and one
    whole = adapted("lora", moved=True)
    result = train(whole, Validation(HELD_OUT, keep=tmp_path / "a"), **changes)
    losses = result.validation_losses
    assert len(losses) == len(result.epoch_losses) == 5
    assert losses.index(min(losses)) < 4
    assert reference_loss(whole, HELD_OUT) == pytest.approx(min(losses), rel=1e-5)
    for stop_at in (4, 12, 13):  # within a pass, before the cut one, at its end
        with pytest.raises(Stopped):
            train(
                adapted("lora", moved=True), Validation(HELD_OUT, keep=tmp_path / "b"),
                folder=tmp_path / "b", stop_at=stop_at, **changes,
            )  # fmt: skip
    resumed = adapted("lora", moved=True)
    validation = Validation(HELD_OUT, keep=tmp_path / "b")
    assert same(train(resumed, validation, folder=tmp_path / "b", **changes)) == same(result)
    for parameter, value in trained_state(whole).items():
        assert torch.equal(value, trained_state(resumed)[parameter]), parameter


def test_superseded_weights_are_removed_once_no_checkpoint_needs_them(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    validation = Validation(HELD_OUT, keep=folder)
    changes: dict[str, object] = {"epochs": 6, "learning_rate": 3e-4, "schedule": "constant"}
    kept = Checkpoints(folder, {}, minutes=0)
    result = fit(
        adapted("full", moved=True), EXAMPLES, spec(**changes), seed=3, device="cpu",
        precision="fp32", pad_token_id=0, callbacks=[validation, kept],
    )  # fmt: skip
    assert list(result.validation_losses) == sorted(result.validation_losses, reverse=True)
    # The last epoch's weights need no file; the checkpoints before it resume with the fifth's.
    assert set(best_files(folder)) == {4}


def test_lost_weights_are_told_before_a_step_is_taken(tmp_path: Path) -> None:
    changes = OVERFITS | {"epochs": 5}
    with pytest.raises(Stopped):
        train(
            adapted("lora", moved=True), Validation(HELD_OUT, keep=tmp_path), folder=tmp_path,
            stop_at=4, **changes,
        )  # fmt: skip
    for file in best_files(tmp_path).values():
        file.unlink()
    with pytest.raises(TrainingError, match=r"best-00000000\.safetensors: .*are gone; remove"):
        train(
            adapted("lora", moved=True), Validation(HELD_OUT, keep=tmp_path), folder=tmp_path,
            **changes,
        )  # fmt: skip


def test_rows_without_labels_alone_are_refused() -> None:
    with pytest.raises(TrainingError, match="none of 1 validation rows has a response"):
        train(adapted("lora"), Validation(HELD_OUT[-1:]))


def train_in_ranks(rank: int, folder: Path) -> list[tuple[tuple[float, ...], dict[str, Any]]]:
    outcomes = []
    for name in ("lora", "full"):
        model = adapted(name, moved=True)
        changes = OVERFITS | {"epochs": 4, "token_budget": 32}
        result = train(model, Validation(HELD_OUT, keep=folder / name), **changes)
        gathered = gather_trained(model)
        state = trained_state(model) if gathered is None else gathered
        outcomes.append((result.validation_losses, state))
    return outcomes


@pytest.mark.long
def test_two_processes_measure_and_keep_what_one_does(tmp_path: Path) -> None:
    first, second = run_ranks(train_in_ranks, tmp_path, tmp_path / "kept")
    alone = train_in_ranks(0, tmp_path / "alone")
    for (losses, state), (others, _), (expected, whole) in zip(first, second, alone, strict=True):
        assert losses == others
        assert losses == pytest.approx(expected, rel=1e-4)
        assert losses.index(min(losses)) == expected.index(min(expected)) < 3
        for name, value in whole.items():
            assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-4), name
    assert all(math.isfinite(loss) for losses, _ in first for loss in losses)


def test_every_method_is_measured() -> None:
    for name in TRAINED:
        model = adapted(name)
        result = train(model, Validation(HELD_OUT), epochs=1)
        assert result.validation_losses[0] == pytest.approx(
            reference_loss(model, HELD_OUT), rel=1e-5
        ), name
