"""Two processes train on pictures what one trains, also where a rank's part of a batch has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from harness.training.loop import fit
from harness.training.spec import TrainSpec
from tests.fixtures.pictures import PROMPTS, image_tensors, looking, picture_features
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import random_examples, relative_distance, trained_state

pytestmark = pytest.mark.long

EXAMPLES = [
    replace(one, picture="cat" if index in (2, 9) else "dog" if index == 15 else None)
    for index, one in enumerate(random_examples(21))
]
"""So few have a picture that in each batch of 7 one of two ranks has none, or both."""


def train(name: str, *, bare: bool = False) -> tuple[tuple[float, ...], dict[str, torch.Tensor]]:
    model = looking(name)
    examples = [replace(one, picture=None) for one in EXAMPLES] if bare else EXAMPLES
    result = fit(
        model,
        examples,
        TrainSpec(
            learning_rate=3e-3,
            image_learning_rate=1e-3,
            epochs=2,
            batch_size=7,
            token_budget=40,
            weight_decay=0.02,
            max_gradient_norm=1.0,
        ),
        seed=3,
        device="cpu",
        precision="fp32",
        pad_token_id=0,
        pictures=None if bare else picture_features(),
    )
    return result.epoch_losses, trained_state(model)


Trained = dict[str, tuple[tuple[float, ...], dict[str, torch.Tensor]]]


def train_all(rank: int, names: Sequence[str]) -> Trained:
    found = {name: train(name) for name in names}
    return found | {"bare": train(names[0], bare=True)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Trained]:
    return run_ranks(train_all, tmp_path_factory.mktemp("two"), PROMPTS)


@pytest.mark.parametrize("name", PROMPTS)
def test_two_processes_train_what_one_trains(name: str, both: Sequence[Trained]) -> None:
    losses, trained = train(name)
    for found_losses, found in (both[0][name], both[1][name]):
        assert found_losses == pytest.approx(losses, rel=1e-5)
        for tensor, value in found.items():
            assert relative_distance(value, trained[tensor]) < 1e-5, tensor


def test_two_processes_train_rows_without_a_picture(both: Sequence[Trained]) -> None:
    losses, trained = train(PROMPTS[0], bare=True)
    found_losses, found = both[0]["bare"]
    assert found_losses == pytest.approx(losses, rel=1e-5)
    for tensor, value in found.items():
        assert relative_distance(value, trained[tensor]) < 1e-5, tensor


def test_the_projection_is_trained() -> None:
    before = {name: one.detach().clone() for name, one in image_tensors(looking()).items()}
    _, after = train("zero-init-linear")
    assert len(before) == 2
    assert all(relative_distance(after[name], value) > 1e-3 for name, value in before.items())
