"""What another picture does to the answers: 0 where nothing looks, and the bits stay the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.records.picture_effect import CHANGES, EFFECT, NO_EFFECT_NATS
from harness.records.results import TrainResult
from harness.training.callback import Callback
from harness.training.loop import fit
from harness.training.picture_effect import PictureEffect, picture_effect
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep
from tests.fixtures.pictures import (
    PICTURES,
    PROMPTS,
    image_tensors,
    looking,
    picture_features,
    with_pictures,
)
from tests.fixtures.tiny import random_examples, trained_state

EXAMPLES = with_pictures(random_examples(12))
SEEN = [one for one in EXAMPLES if one.picture is not None]
OTHERS = [PICTURES[PICTURES.index(str(one.picture)) - 1] for one in SEEN]


def step_of(model: Any, pictures: Any = None) -> TrainStep:
    spec = TrainSpec(learning_rate=0.01, batch_size=4)
    return TrainStep(
        model, spec, device=torch.device("cpu"), precision="fp32", pad_token_id=0,
        pictures=pictures or picture_features(),
    )  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_it_is_what_single_passes_give(name: str) -> None:
    train_step = step_of(looking(name))
    moved, changed = [], []
    for example, other in zip(SEEN, OTHERS, strict=True):
        found = []
        for picture in (example.picture, other):
            (batch,) = train_step.loss.micro_batches(
                _sequences(replace(example, picture=picture)), token_budget=100, pad_token_id=0,
                device=train_step.device,
            )  # fmt: skip
            found.append(train_step.loss.label_logits(batch).log_softmax(-1))
        labels = torch.tensor(example.token_ids[example.num_prompt_tokens :])
        own, after = (one[range(len(labels)), labels] for one in found)
        moved += (own - after).abs().tolist()
        changed.append(found[0].argmax(-1).tolist() != found[1].argmax(-1).tolist())
    measured = picture_effect(train_step, SEEN, OTHERS)
    assert measured[EFFECT] == pytest.approx(sum(moved) / len(moved), rel=1e-4)
    assert measured[EFFECT] > 1e-3
    assert measured[CHANGES] == pytest.approx(sum(changed) / len(changed))


def _sequences(example: Any) -> Any:
    from harness.training.micro_batches import number_sequences

    return number_sequences([example])


def test_it_is_0_before_the_gates_have_moved() -> None:
    for name in ("zero-init-linear", "zero-init-nonlinear"):
        train_step = step_of(looking(name, moved=False))
        assert picture_effect(train_step, SEEN, OTHERS) == {EFFECT: 0.0, CHANGES: 0.0}


def trained(*, follows: bool, **changes: Any) -> tuple[TrainResult, dict[str, torch.Tensor], Any]:
    model = looking(moved=False)
    effect = PictureEffect.of(EXAMPLES)
    assert effect is not None
    callbacks: list[Callback] = [effect] if follows else []
    spec = TrainSpec(**{"learning_rate": 0.01, "batch_size": 4, "epochs": 3, **changes})
    result = fit(
        model, EXAMPLES, spec, seed=0, device="cpu", precision="fp32", pad_token_id=0,
        callbacks=callbacks, pictures=picture_features(),
    )  # fmt: skip
    return result, trained_state(model), effect


def test_it_changes_no_bit_of_the_training() -> None:
    (followed, first, effect), (alone, second, _) = (trained(follows=on) for on in (True, False))
    assert followed.epoch_losses == alone.epoch_losses
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert set(followed.final_statistics) - set(alone.final_statistics) == {EFFECT, CHANGES}
    assert followed.final_statistics[EFFECT] > 0
    assert {EFFECT, CHANGES} == effect.result_metrics(None).keys()


def test_a_projection_that_gives_every_picture_the_same_is_told_of() -> None:
    model = looking(moved=True)
    with torch.no_grad():
        for value in image_tensors(model).values():
            value.mul_(1e-6)
    spec = TrainSpec(learning_rate=1e-9, batch_size=4, epochs=1)
    effect = PictureEffect.of(EXAMPLES)
    assert effect is not None
    result = fit(
        model, EXAMPLES, spec, seed=0, device="cpu", precision="fp32", pad_token_id=0,
        callbacks=[effect], pictures=picture_features(),
    )  # fmt: skip
    assert result.final_statistics[EFFECT] < NO_EFFECT_NATS
    assert effect.note is not None
    assert effect.note.startswith("another picture does not change the answers: on ")
    assert effect.note.endswith("; set a lower train.image_learning_rate")


def test_pictures_that_change_answers_are_no_fault() -> None:
    model = looking(moved=True)
    with torch.no_grad():
        for value in image_tensors(model).values():
            value.mul_(30)
    effect = PictureEffect.of(EXAMPLES)
    assert effect is not None
    assert effect.note is None  # not measured yet
    fit(
        model, EXAMPLES, TrainSpec(learning_rate=1e-9, batch_size=4, epochs=1), seed=0,
        device="cpu", precision="fp32", pad_token_id=0, callbacks=[effect],
        pictures=picture_features(),
    )  # fmt: skip
    assert effect.note is None


def test_two_pictures_are_needed() -> None:
    one = [replace(example, picture="cat") for example in EXAMPLES]
    assert PictureEffect.of(one) is None
    assert PictureEffect.of(random_examples(3)) is None
    both = PictureEffect.of([*one, replace(one[0], picture="dog")])
    assert both is not None
    assert both.others == ["dog"] * len(one) + ["cat"]
