"""Segments give the logits of the plain forward pass of each request."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM

from harness.evaluation.prefix_trie.forward import Prefixes, TrieForward, attention_bias
from harness.evaluation.prefix_trie.trie import Request, Segment, plan_spans

START = tuple(range(5, 25))
ENDS = ((30, 31, 32), (33, 34), (30, 35, 36, 37))


def plain(model: Any, tokens: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def forward(model: Any) -> TrieForward:
    return TrieForward(model.eval(), contextlib.nullcontext)


def chain(tokens: tuple[int, ...], parent: Segment | None = None) -> Segment:
    start = 0 if parent is None else parent.start + parent.size
    positions = np.arange(start, start + len(tokens))
    return Segment(0, parent, start, np.array(tokens), positions, None)


def keep(
    model: TrieForward, segments: list[Segment], before: Prefixes | None = None
) -> tuple[Prefixes, Tensor]:
    rows = [(segment,) for segment in segments]
    logits, kept = model.run(rows, before, np.zeros(0, np.int64), keep=True)
    assert kept is not None
    return kept, logits


def test_a_branching_segment(model: LlamaForCausalLM) -> None:
    asked = [Request(START + end, end) for end in ENDS]
    spans = plan_spans(asked, largest_segment=4096, hidden_size=32)
    (segment,) = {span.segment for span in spans}
    logits, _ = forward(model).run([(segment,)], None, np.arange(segment.size))
    for span in spans:
        whole = plain(model, asked[span.request].input_ids)
        first = len(whole) - len(ENDS[span.request]) + span.first_target
        found = logits[span.index : span.index + span.count]
        torch.testing.assert_close(found, whole[first : first + span.count], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_segments_of_different_lengths_on_prefixes_of_different_lengths(
    same: bool, model: LlamaForCausalLM
) -> None:
    model_of = forward(model)
    prefixes = [chain(START), chain(START if same else START[:9])]
    kept, logits = keep(model_of, prefixes)
    assert len(logits) == 0
    parents = [prefixes[0], prefixes[0] if same else prefixes[1]]
    segments = [chain(end, parent) for end, parent in zip(ENDS, parents, strict=False)]
    rows = [(segment,) for segment in segments]
    found, _ = model_of.run(rows, kept.select(parents), np.arange(6))
    for number, segment in enumerate(segments):
        assert segment.parent is not None
        whole = plain(model, (*segment.parent.tokens.tolist(), *segment.tokens.tolist()))
        own = found[3 * number : 3 * number + segment.size]
        torch.testing.assert_close(own, whole[-segment.size :], atol=1e-5, rtol=1e-5)


def test_segments_in_one_row_do_not_see_each_other(model: LlamaForCausalLM) -> None:
    model_of, first = forward(model), chain(START)
    kept, _ = keep(model_of, [first])
    segments = [chain(end, first) for end in ENDS]
    rows = [(segments[0], segments[1]), (segments[2],)]
    found, _ = model_of.run(rows, kept.select([first]), np.arange(10))
    for segment, begin in zip(segments, (0, 3, 5), strict=True):
        whole = plain(model, (*START, *segment.tokens.tolist()))
        own = found[begin : begin + segment.size]
        torch.testing.assert_close(own, whole[-segment.size :], atol=1e-5, rtol=1e-5)


def test_a_prefix_on_a_prefix(model: LlamaForCausalLM) -> None:
    model_of = forward(model)
    first = chain(START)
    kept_first, _ = keep(model_of, [first])
    seconds = [chain((40, 41, 42), first), chain((43,), first)]
    kept_second, _ = keep(model_of, seconds, kept_first.select([first, first]))
    last = chain((50, 51), seconds[1])
    found, _ = model_of.run([(last,)], kept_second.select([seconds[1]]), np.arange(2))
    torch.testing.assert_close(found, plain(model, (*START, 43, 50, 51))[-2:], atol=1e-5, rtol=1e-5)


def test_logits_that_bypass_the_head_are_an_error(model: LlamaForCausalLM) -> None:
    class Bypass(type(model)):  # type: ignore[misc]
        def get_output_embeddings(self) -> Any:
            return torch.nn.Linear(1, 1)

    other = Bypass(model.config)
    with pytest.raises(ValueError, match="do not come from its output embeddings"):
        forward(other).run([(chain(START),)], None, np.arange(2))


def test_a_mask_that_is_added_is_what_sdpa_makes_of_a_bool_mask(model: LlamaForCausalLM) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8).unbind()
    seen = torch.rand(2, 1, 5, 5) < 0.6
    seen |= torch.eye(5, dtype=torch.bool)
    bias = attention_bias(model, seen)
    assert bias.stride()[:-1] == (5 * 16, 5 * 16, 16)
    by_bool, by_bias = (
        scaled_dot_product_attention(query, key, value, attn_mask=mask) for mask in (seen, bias)
    )
    assert torch.equal(by_bool, by_bias)
