"""Fused norms against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.models.families import FAMILIES
from harness.models.fused_norms import FusedNorms
from harness.testing.method_laws import tiny_model
from tests.fixtures.tiny import relative_distance

FUSED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2")


def look(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=torch.arange(12).view(2, 6)).logits
    logits.logsumexp(-1).sum().backward()
    return logits.detach(), {name: one.grad.clone() for name, one in model.named_parameters()}


@pytest.mark.parametrize("family", FUSED)
def test_they_have_the_formula_of_the_familys_own(family: str) -> None:
    model: Any = tiny_model(family).requires_grad_()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight += 0.3 * torch.randn(
                    weight.shape, generator=torch.Generator().manual_seed(1)
                )
    (logits, expected), norms = look(model), FusedNorms(model)
    assert norms.norms
    norms.install()
    own_logits, found = look(model)
    assert all("forward" in vars(norm) for norm in norms.norms)
    assert relative_distance(own_logits, logits) < 1e-5
    for name, gradient in found.items():
        assert relative_distance(gradient, expected[name]) < 1e-5, name
    norms.remove()
    assert torch.equal(look(model)[0], logits)
    assert not any("forward" in vars(module) for module in model.modules())


def test_other_formulas_are_left_alone() -> None:
    for family in FAMILIES:
        assert bool(FusedNorms(tiny_model(family)).norms) == (family in FUSED)
