"""Grouped heads with and without repetition: the same values."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.models import grouped_heads
from harness.models.grouped_heads import attend, repeat_grouped_heads

LAYER = SimpleNamespace(num_key_value_groups=3, is_causal=True)


def inputs() -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 6, 7, 8), (2, 2, 7, 8), (2, 2, 7, 8)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def test_on_the_cpu_it_is_transformers_own() -> None:
    given = inputs()
    assert torch.equal(
        attend(LAYER, *given, None)[0], sdpa_attention_forward(LAYER, *given, None)[0]
    )


@pytest.mark.parametrize("masked", [True, False])
def test_repeated_heads_give_the_same(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs()
    mask = torch.ones(7, 7, dtype=torch.bool).tril()[None, None] if masked else None
    expected, _ = sdpa_attention_forward(LAYER, *given, mask)
    monkeypatch.setattr(grouped_heads, "takes_grouped_heads", lambda query: False)
    found, _ = attend(LAYER, *given, mask)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_models_run_on_it_once_it_is_registered() -> None:
    repeat_grouped_heads()
    assert AttentionInterface()["sdpa"] is attend
