"""Attention over a packed row in one call, by the kernel's stand-in, against that by buckets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.data.instructions import Example
from harness.methods import METHODS
from harness.models import varlen_attention
from harness.models.families import FAMILIES
from harness.models.kernel_check import KernelCheck
from harness.models.packed_attention import VARLEN
from harness.models.pictures import PictureFeatures
from harness.models.varlen_attention import AttentionPath, exact_varlen_attn, why_buckets
from harness.testing.method_laws import tiny_model
from harness.training.loss import ResponseLoss
from harness.training.micro_batches import number_sequences
from harness.training.packing import PackedRow
from tests.fixtures.pictures import (
    ENCODER,
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
    loss = ResponseLoss(model, pictures, path=path)
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


def of_family(name: str, family: str, **options: Any) -> Any:
    """A tiny model of a family under a method, its trained tensors moved off their start."""
    method = METHODS[name]
    model = method.apply(tiny_model(family), method.options.model_validate(options), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("name", ["random-init", "zero-init-nonlinear", "full"])
@pytest.mark.parametrize("family", [one for one in FAMILIES if not FAMILIES[one].soft_capped])
def test_families_with_windows_and_grouped_heads_too(name: str, family: str) -> None:
    assert_alike(of_family(name, family), small(alike()))


def small(examples: list[Example]) -> list[Example]:
    return [
        Example(tuple(i % 40 for i in one.token_ids), one.num_prompt_tokens) for one in examples
    ]


@pytest.mark.parametrize("name", ["random-init", "zero-init-linear"])
def test_pictures_where_keys_are_normed(name: str) -> None:
    examples = [*with_pictures(small(random_examples(8))), *with_pictures(small(alike()))]
    assert_alike(
        of_family(name, "qwen3", image_encoder=ENCODER), examples, pictures=picture_features()
    )


@pytest.mark.parametrize("name", ["random-init", "zero-init-linear"])
def test_a_kernel_that_does_not_run_leaves_its_check_to_buckets(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Tensor:
        raise TypeError("varlen_attn() got an unexpected keyword argument 'enable_gqa'")

    model = of_family(name, "qwen3", image_encoder=ENCODER)
    examples = with_pictures(small(random_examples(8)))
    loss, check = ResponseLoss(model, picture_features(), path="varlen"), KernelCheck()
    (row,) = loss.micro_batches(
        number_sequences(examples), token_budget=200, pad_token_id=0, device=CPU
    )
    assert isinstance(row, PackedRow)
    expected = loss(replace(row, packing=replace(row.packing, documents=None)))
    monkeypatch.setattr(varlen_attention, "exact_varlen_attn", refuses)
    found = loss(replace(row, packing=replace(row.packing, check=check)))
    assert torch.equal(found, expected)
    assert "does not run here (TypeError: varlen_attn() got" in check.faults()[VARLEN]


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (2, 0)])
def test_the_stand_in_is_aligned_at_the_last_query_and_key(window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(5, 4, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)
    queries, keys = [0, 2, 5], [0, 5, 9]
    found = exact_varlen_attn(
        query, key, value, torch.tensor(queries), torch.tensor(keys), 3, 5,
        scale=0.3, window_size=window, enable_gqa=True,
    )  # fmt: skip
    left, right = window
    for document in range(2):
        own = range(keys[document], keys[document + 1])
        ends = range(queries[document], queries[document + 1])
        for place, row in enumerate(ends):
            at = own[-1] - (len(ends) - 1 - place)
            seen = [
                one for one in own if right < 0 or at - (left if left >= 0 else 99) <= one <= at
            ]
            for head in range(4):
                scores = 0.3 * key[seen, head // 2] @ query[row, head]
                expected = scores.softmax(0) @ value[seen, head // 2]
                torch.testing.assert_close(found[row, head], expected)


def test_it_is_chosen_by_device_precision_and_family(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, half = torch.device("cuda"), torch.bfloat16
    capability = (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model = tiny_model("mistral")
    assert why_buckets(model, cuda, half) is None
    assert why_buckets(model, cuda, torch.float16) is None
    assert "CUDA" in str(why_buckets(model, CPU, half))
    assert "half" in str(why_buckets(model, cuda, None))
    assert "eager" in str(why_buckets(tiny_model("gemma2"), cuda, half))
    model.config.head_dim = 12
    assert "a head of 12" in str(why_buckets(model, cuda, half))
    model.config.head_dim = 256
    assert why_buckets(model, cuda, half) is None
    capability = (8, 9)
    assert "up to 192" in str(why_buckets(model, cuda, half))
    capability = (7, 0)
    assert "the card has 7.0" in str(why_buckets(model, cuda, half))
