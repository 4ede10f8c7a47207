"""Attention over packed rows, against the same attention on each sequence by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.models.packed_attention import attend_packed, take_rows
from harness.training.packing import TokenSequence, pack, shared_inputs
from tests.fixtures.tiny import relative_distance

CPU = torch.device("cpu")


def one_by_one(module: Any, query: Tensor, key: Tensor, value: Tensor, nodes: list[int]) -> Tensor:
    """Written from the formula: softmax(q K^T / sqrt(d)) V over the tokens up to the query."""
    window = module["window"]
    q, k, v = (tensor[0, :, nodes] for tensor in (query, key, value))
    distance = torch.arange(len(nodes))[:, None] - torch.arange(len(nodes))
    seen = (distance >= 0) & (distance < window)
    scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1)


@pytest.mark.parametrize("window", [3, 100])
@pytest.mark.parametrize("additive", [True, False])
def test_each_node_sees_its_own_sequence(window: int, additive: bool) -> None:
    texts = [(1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 9), (1, 2, 8, 8, 8, 8), (1, 2, 8, 8, 9), (4,) * 12]
    sequences = sorted(
        (TokenSequence(index, ids, 2) for index, ids in enumerate(texts)),
        key=lambda one: one.token_ids,
    )
    row = pack(sequences, shared_inputs(sequences), device=CPU)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, row.num_tokens, 4) for _ in range(3))
    masks = []

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any) -> Any:
        masks.append(mask)
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None
        ).transpose(1, 2), None

    output, _ = attend_packed(
        attention,
        None,
        query,
        key,
        value,
        packing=row.packing,
        causal=not additive,
        sliding_window=window,
    )
    assert (masks[0] is None) == (window == 100 and not additive)
    start = 0
    for bucket in row.packing.buckets:
        for _ in range(bucket.num_sequences):
            nodes = row.packing.node_of_slot_M[start : start + bucket.length].tolist()
            nodes = list(dict.fromkeys(nodes))
            expected = one_by_one({"window": window}, query, key, value, nodes)
            torch.testing.assert_close(output[0, nodes], expected, rtol=1e-5, atol=1e-6)
            start += bucket.length


def test_buckets_by_split_have_the_bits_of_slices() -> None:
    texts = [(1, 2, 3, *range(4, 4 + size)) for size in (3, 9, 4, 40, 38, 5, 80)]
    sequences = [TokenSequence(index, ids, 2) for index, ids in enumerate(sorted(texts))]
    row = pack(sequences, shared_inputs(sequences), device=CPU)
    assert len(row.packing.buckets) > 2
    torch.manual_seed(0)
    given = [torch.randn(1, 2, row.num_tokens, 4, requires_grad=True) for _ in range(3)]
    weights = torch.randn(1, row.num_tokens, 2, 4)

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any) -> Any:
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return output.transpose(1, 2), None

    def by_slices() -> Tensor:
        words = [take_rows(one[0].transpose(0, 1), row.packing.node_of_slot_M) for one in given]
        outputs, start = [], 0
        for bucket in row.packing.buckets:
            end, shape = start + bucket.num_sequences * bucket.length, bucket.num_sequences
            batch = [part[start:end].unflatten(0, (shape, -1)).transpose(1, 2) for part in words]
            outputs.append(attention(None, *batch, None)[0].flatten(0, 1))
            start = end
        return take_rows(torch.cat(outputs), row.packing.slot_of_node_N)[None]

    output, _ = attend_packed(attention, None, *given, packing=row.packing, causal=True)
    expected = by_slices()
    assert torch.equal(output, expected)
    found = torch.autograd.grad((output * weights).sum(), given)
    for one, other in zip(
        found, torch.autograd.grad((expected * weights).sum(), given), strict=True
    ):
        assert torch.equal(one, other)


def test_gradients_of_many_copies_are_summed_in_fp32() -> None:
    # In bf16 a sum of ones stops at 256: 256 + 1 is 256 again.
    x = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    take_rows(x, torch.tensor([0] * 1000 + [1])).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.tolist() == [[1000.0] * 3, [1.0] * 3]


def test_rows_are_taken_and_given_back() -> None:
    x = torch.randn(6, 2, 3, requires_grad=True)
    rows = torch.tensor([5, 0, 0, 3, 5, 5])
    weights = torch.randn(6, 2, 3)
    assert torch.equal(take_rows(x, rows), x[rows])
    (own,) = torch.autograd.grad((take_rows(x, rows) * weights).sum(), x)
    (torchs,) = torch.autograd.grad((x[rows] * weights).sum(), x)
    assert relative_distance(own, torchs) < 1e-6
