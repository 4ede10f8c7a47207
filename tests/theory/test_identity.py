"""An attention layer of the demo model is the mixture of experts that the paper says it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.methods.zero_init.attention import PromptAttention
from harness.theory.identity import (
    STRENGTH,
    attention_of,
    layer_terms,
    record_layer,
    show_identities,
)
from tests.fixtures.tiny import adapted, random_examples


@pytest.fixture(scope="module")
def identities():
    return {found.method: found for found in show_identities()}


@pytest.mark.parametrize("method", ["zero-init-linear", "random-init"])
def test_the_sum_of_the_experts_is_the_layers_output(identities, method) -> None:
    found = identities[method]
    assert found.largest_difference < 1e-12 * found.largest_output
    assert found.total == pytest.approx(found.output, rel=1e-12)
    assert found.total == pytest.approx(sum(term.contribution for term in found.terms))
    for term in found.terms:
        factor = found.strength if term.is_prompt and found.strength else 1.0
        assert term.contribution == pytest.approx(factor * term.gate * term.value)


def test_zero_init_has_two_softmaxes_and_joint_one(identities) -> None:
    sums = {
        method: [sum(t.gate for t in found.terms if t.is_prompt is kind) for kind in (False, True)]
        for method, found in identities.items()
    }
    assert sums["zero-init-linear"] == pytest.approx([1, 1])
    assert sum(sums["random-init"]) == pytest.approx(1)
    assert 0 < sums["random-init"][1] < 1
    assert identities["zero-init-linear"].strength == pytest.approx(STRENGTH)
    assert identities["random-init"].strength is None


@pytest.mark.parametrize("method", ["zero-init-linear", "random-init"])
def test_it_holds_with_grouped_heads_and_moved_gates(method) -> None:
    model = adapted(method, moved=True).double().eval()
    ids = torch.tensor([random_examples(1)[0].token_ids])
    for prompt in (m for m in model.modules() if isinstance(m, PromptAttention)):
        layer = attention_of(model, prompt.layer_index)
        seen = record_layer(model, layer, ids)
        total = layer_terms(layer, prompt, seen).total()
        assert np.abs(total - seen.output).max() < 1e-12
        assert not layer._forward_pre_hooks
        assert not layer.o_proj._forward_pre_hooks


def test_a_wrong_gate_is_seen() -> None:
    model = adapted("zero-init-linear", moved=True).double().eval()
    prompt = next(m for m in model.modules() if isinstance(m, PromptAttention))
    layer = attention_of(model, prompt.layer_index)
    seen = record_layer(model, layer, torch.tensor([random_examples(1)[0].token_ids]))
    with torch.no_grad():
        prompt.gate.add_(0.1)
    assert np.abs(layer_terms(layer, prompt, seen).total() - seen.output).max() > 1e-3
