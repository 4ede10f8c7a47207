"""What is computed of weights alone is kept while they stay, to the same bits."""

from __future__ import annotations

import pytest
import torch

from harness.models.kept import keep, weights_stay
from tests.fixtures.tiny import adapted
from tests.fixtures.tiny_models import PROMPT_METHODS


@pytest.mark.parametrize("name", PROMPT_METHODS)
def test_kept_prompts_give_the_same_bits(name: str) -> None:
    model, tokens = adapted(name, moved=True), torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        expected, calls = model(tokens).logits, []
        last = model.get_decoder().layers[-1].self_attn
        last.k_proj.register_forward_hook(lambda *_: calls.append(1))
        with weights_stay():
            found = [model(tokens).logits for _ in range(3)]
    assert all(torch.equal(one, expected) for one in found)
    assert len(calls) == 3 + 1  # of tokens in each pass, of the prompt in one


def test_weights_may_change_between() -> None:
    model, tokens = adapted("zero-init-linear", moved=True), torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        with weights_stay():
            before = model(tokens).logits
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(2)
        with weights_stay():
            after = model(tokens).logits
        assert not torch.equal(before, after)
        assert torch.equal(after, model(tokens).logits)


def test_nothing_is_kept_where_gradients_flow() -> None:
    found = []
    with weights_stay(), weights_stay():
        keep("key", lambda: found.append(1))
        with torch.no_grad():
            keep("key", lambda: found.append(2))
            keep("key", lambda: found.append(3))
            keep("other key", lambda: found.append(4))
    assert found == [1, 2, 4]
