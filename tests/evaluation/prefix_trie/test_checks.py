"""A model that cannot be scored over a trie is found out before it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

from harness.evaluation.prefix_trie.checks import static_refusal
from harness.evaluation.scorer import Scorer
from tests.evaluation.test_scorer import assert_equals_hflm, choices, requests

Make = Callable[..., LlamaForCausalLM]


def with_attention(model: LlamaForCausalLM, name: str, changed: Callable[..., Any]) -> Any:
    """Returns the model with SDPA whose arguments `changed` changes."""

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        return AttentionInterface()["sdpa"](
            module, query, key, value, changed(mask, query, key), **kwargs
        )

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, AttentionMaskInterface()["sdpa"])
    model.set_attn_implementation(name)
    return model


def ignores_masks(mask: Any, query: Any, key: Any) -> Any:
    """Sees all that lies before in the row, as an attention without any mask would."""
    steps, before = query.shape[2], key.shape[2] - query.shape[2]
    return torch.ones(steps, key.shape[2], dtype=torch.bool).tril(before)[None, None]


def refuses_masks(mask: Any, _query: Any, _key: Any) -> Any:
    """Takes causal rows only."""
    if mask is not None:
        raise NotImplementedError("attn_mask is not supported")
    return None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [(ignores_masks, "differs by"), (refuses_masks, "attn_mask is not supported")],
)
def test_an_attention_that_mistreats_masks_is_found_out(
    changed: Callable[..., Any], reason: str, make_model: Make, tokenizer: Tokenizer
) -> None:
    model = with_attention(make_model(), f"{changed.__name__}_sdpa", changed)
    scorer = assert_equals_hflm(model, tokenizer, requests(choices()))
    assert reason in str(scorer.batching.fallback)


def test_positions_that_cannot_restart_are_found_out(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    model = make_model()

    def drop_positions(_module: Any, args: Any, named: dict[str, Any]) -> Any:
        return args, {key: value for key, value in named.items() if key != "position_ids"}

    model.register_forward_pre_hook(drop_positions, with_kwargs=True)
    scorer = assert_equals_hflm(model, tokenizer, requests(choices()))
    assert "differs by" in str(scorer.batching.fallback)


def test_a_model_is_tried_once(make_model: Make, tokenizer: Tokenizer) -> None:
    model, calls = make_model().eval(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    counts = []
    for _ in range(2):
        calls.clear()
        Scorer(model, tokenizer).loglikelihood(requests(choices()))
        counts.append(len(calls))
    assert counts[1] < counts[0]


def test_weights_that_are_no_numbers_are_not_taken_for_a_wrong_mask(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    model = make_model().eval()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    scorer = Scorer(model, tokenizer)
    values = [value for value, _ in scorer.loglikelihood(requests(choices()))]
    assert all(value != value for value in values)
    assert scorer.batching.fallback is None


def test_what_the_configuration_tells_is_not_tried(make_model: Make) -> None:
    model = make_model()
    assert static_refusal(model) is None
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2 takes no mask" in str(static_refusal(model))
