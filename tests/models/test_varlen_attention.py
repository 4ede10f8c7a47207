"""Attention over a packed row in one call, by the kernel's stand-in, against that by buckets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.data.instructions import Example
from harness.models.pictures import PictureFeatures
from harness.models.varlen_attention import AttentionPath, exact_varlen_attn
from harness.training.loss import ResponseLoss
from harness.training.micro_batches import number_sequences
from tests.fixtures.chat_models import chat_model
from tests.fixtures.pictures import (
    PROMPTS,
    alike_but_in_their_pictures,
    looking,
    picture_features,
    with_pictures,
)
from tests.fixtures.tiny import TRAINED, adapted, random_examples, relative_distance

CPU = torch.device("cpu")


def alike(count: int = 8) -> list[Example]:
    """Examples of which several go on as another, or are the whole of one with other labels."""
    found = [*random_examples(count)]
    found += [Example((*found[0].token_ids[:5], *range(9, 9 + size)), 2) for size in (3, 20)]
    return [*found, Example(found[1].token_ids, 3), Example(found[1].token_ids[:-2], 2)]


def gradients(
    model: nn.Module,
    examples: list[Example],
    path: AttentionPath,
    *,
    share: bool = True,
    pictures: PictureFeatures | None = None,
) -> tuple[float, dict[str, Tensor]]:
    loss = ResponseLoss(model, pictures, path)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in loss.micro_batches(
        number_sequences(examples), token_budget=130, pad_token_id=0, device=CPU, share=share
    ):
        value = loss(batch)
        value.backward()
        total += value.item()
    named = model.named_parameters()
    return total, {name: one.grad.clone() for name, one in named if one.grad is not None}


def assert_alike(model: nn.Module, examples: list[Example], **given: Any) -> None:
    loss, expected = gradients(model, examples, "buckets", **given)
    own_loss, found = gradients(model, examples, "varlen", **given)
    assert own_loss == pytest.approx(loss, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        if expected[name].norm() > 1e-6:
            assert relative_distance(gradient, expected[name]) < 1e-5, name


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("share", [True, False])
def test_gradients_are_those_by_buckets(name: str, share: bool) -> None:
    assert_alike(adapted(name, moved=True), alike(), share=share)


@pytest.mark.parametrize("name", PROMPTS)
def test_pictures_too(name: str) -> None:
    examples = [*with_pictures(random_examples(8)), *alike_but_in_their_pictures(3)]
    assert_alike(looking(name), examples, pictures=picture_features())
