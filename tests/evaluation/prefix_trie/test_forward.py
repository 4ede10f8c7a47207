"""Rows give the logits of the plain forward pass of each request."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from harness.evaluation.prefix_trie.forward import TrieForward
from harness.evaluation.prefix_trie.trie import Query, Row, Trie

START = tuple(range(5, 25))
ENDS = ((30, 31, 32), (33, 34), (30, 35, 36, 37))


def plain(model: Any, tokens: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def forward(model: Any) -> TrieForward:
    return TrieForward(model.eval(), contextlib.nullcontext)


def chain(tokens: tuple[int, ...], parent: Row | None = None) -> Row:
    start = 0 if parent is None else parent.start + parent.size
    positions = np.arange(start, start + len(tokens))
    return Row(0, parent, start, np.array(tokens), positions, None)


def test_a_branching_row(model: LlamaForCausalLM) -> None:
    queries = [Query(START + end, end) for end in ENDS]
    spans = Trie(queries, largest_row=4096, width=32).spans
    (row,) = {span.row for span in spans}
    logits = forward(model).logits([(row,)], None, np.arange(row.size))
    for span in spans:
        whole = plain(model, queries[span.query].fed)
        first = len(whole) - len(ENDS[span.query]) + span.first_target
        found = logits[span.index : span.index + span.count]
        torch.testing.assert_close(found, whole[first : first + span.count], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_rows_of_different_lengths_on_prefixes_of_different_lengths(
    same: bool, model: LlamaForCausalLM
) -> None:
    run = forward(model)
    prefixes = [chain(START), chain(START if same else START[:9])]
    nothing = np.zeros(0, np.int64)
    logits, kept = run.keep(prefixes, None, nothing)
    assert len(logits) == 0
    parents = [prefixes[0], prefixes[0] if same else prefixes[1]]
    rows = [chain(end, parent) for end, parent in zip(ENDS, parents, strict=False)]
    found = run.logits([(row,) for row in rows], kept.select(parents), np.arange(6))
    for number, row in enumerate(rows):
        assert row.parent is not None
        whole = plain(model, (*row.parent.tokens.tolist(), *row.tokens.tolist()))
        own = found[3 * number : 3 * number + row.size]
        torch.testing.assert_close(own, whole[-row.size :], atol=1e-5, rtol=1e-5)


def test_rows_beside_each_other_do_not_see_each_other(model: LlamaForCausalLM) -> None:
    run, first = forward(model), chain(START)
    _, kept = run.keep([first], None, np.zeros(0, np.int64))
    rows = [chain(end, first) for end in ENDS]
    found = run.logits([(rows[0], rows[1]), (rows[2],)], kept.select([first]), np.arange(10))
    for row, begin in zip(rows, (0, 3, 5), strict=True):
        whole = plain(model, (*START, *row.tokens.tolist()))
        own = found[begin : begin + row.size]
        torch.testing.assert_close(own, whole[-row.size :], atol=1e-5, rtol=1e-5)


def test_a_prefix_on_a_prefix(model: LlamaForCausalLM) -> None:
    run, nothing = forward(model), np.zeros(0, np.int64)
    first = chain(START)
    _, kept_first = run.keep([first], None, nothing)
    seconds = [chain((40, 41, 42), first), chain((43,), first)]
    _, kept_second = run.keep(seconds, kept_first.select([first, first]), nothing)
    last = chain((50, 51), seconds[1])
    found = run.logits([(last,)], kept_second.select([seconds[1]]), np.arange(2))
    torch.testing.assert_close(found, plain(model, (*START, 43, 50, 51))[-2:], atol=1e-5, rtol=1e-5)


def test_logits_that_bypass_the_head_are_an_error(model: LlamaForCausalLM) -> None:
    class Bypass(type(model)):  # type: ignore[misc]
        def get_output_embeddings(self) -> Any:
            return torch.nn.Linear(1, 1)

    other = Bypass(model.config)
    with pytest.raises(ValueError, match="do not come from its output embeddings"):
        forward(other).logits([(chain(START),)], None, np.arange(2))
