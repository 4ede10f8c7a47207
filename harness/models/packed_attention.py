"""Attention over a packed row: each sequence's words meet each other, and nothing else.

Linear layers and norms see the row of nodes as it is. Only here are queries, keys and values
gathered into buckets of sequences of about one length, and the model's own attention runs on each
bucket, on its causal path, without a mask. So no document sees another, and no mask of the size of
the row is ever made.

Shapes: N nodes, M slots, B sequences of a bucket, T their length, H heads, d head size.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface

PREFIX = "packed_"
"""Of the names under which attention over packed rows is registered."""

WordAttention = Callable[..., tuple[Tensor, Tensor | None]]
"""One of transformers' attention functions: the output is (B, T, H, d)."""


class _TakeRows(torch.autograd.Function):
    """`x[rows]`; a row's gradient is summed in fp32 over all places that it was taken to.

    Hundreds of sequences share an opening: in bf16 the sum of their gradients would stop growing.
    On a CPU the order of the sum is fixed. On CUDA it is not, so that low bits may differ.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, rows: Tensor) -> Tensor:
        context.save_for_backward(rows)
        context.num_rows = len(x)
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = context.saved_tensors
        shape = (context.num_rows, *gradient.shape[1:])
        precision = torch.promote_types(gradient.dtype, torch.float32)
        total = torch.zeros(shape, dtype=precision, device=gradient.device)
        total.index_add_(0, rows, gradient.to(precision))
        return total.to(gradient.dtype), None


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Returns `x[rows]`, whose gradient is summed in fp32.

    Args:
        x: (N, ...).
        rows: (M,), indices into N.
    """
    taken: Tensor = _TakeRows.apply(x, rows)
    return taken


def attend_packed(
    attention: WordAttention,
    module: Any,
    query_1HNd: Tensor,
    key_1GNd: Tensor,
    value_1GNd: Tensor,
    *,
    packing: Packing,
    additive_mask: bool,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Returns the output of causal attention within each sequence, (1, N, H, d).

    Args:
        attention: runs on each bucket.
        module: the attention layer.
        query_1HNd: of the nodes, as are keys and values.
        key_1GNd: with G heads.
        value_1GNd: likewise.
        packing: where the sequences' words are.
        additive_mask: whether `attention` must be given a mask, of what is added to the scores.
        **kwargs: for `attention`.
    """
    words = [
        take_rows(tensor[0].transpose(0, 1), packing.node_of_slot_M)
        for tensor in (query_1HNd, key_1GNd, value_1GNd)
    ]
    outputs = []
    start = 0
    for bucket in packing.buckets:
        end = start + bucket.num_sequences * bucket.length
        shape = (bucket.num_sequences, bucket.length)
        parts = [part[start:end].unflatten(0, shape).transpose(1, 2) for part in words]
        mask = _mask(bucket, parts[0], kwargs.get("sliding_window"), additive=additive_mask)
        output_BTHd, _ = attention(module, *parts, mask, **kwargs)
        outputs.append(output_BTHd.flatten(0, 1))
        start = end
    output_MHd = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return take_rows(output_MHd, packing.slot_of_node_N)[None], None


def _mask(
    bucket: Bucket, query_BHTd: Tensor, window: int | None, *, additive: bool
) -> Tensor | None:
    """Returns the mask of a bucket, (1, 1, T, T); None where the causal path does without."""
    length, device = bucket.length, query_BHTd.device
    if window is not None and length <= window:
        window = None
    if window is None and not additive:
        return None
    steps_T = torch.arange(length, device=device)
    distance_TT = steps_T[:, None] - steps_T
    seen_TT = distance_TT >= 0
    if window is not None:
        seen_TT &= distance_TT < window
    if not additive:
        return seen_TT[None, None]
    zeros_TT = torch.zeros(length, length, dtype=query_BHTd.dtype, device=device)
    return zeros_TT.masked_fill(~seen_TT, torch.finfo(query_BHTd.dtype).min)[None, None]


def eager_attention(model: Any) -> WordAttention:
    """Returns the eager attention of a model's family.

    Each family has its own, in the module of its decoder; a user's subclass stands elsewhere.
    """
    found: WordAttention = sys.modules[type(model.get_decoder()).__module__].eager_attention_forward
    return found


def register_packed(model: Any) -> str:
    """Registers the model's own attention for packed rows, and returns the name.

    It takes the argument `packing`; layers pass on what they do not know. Registering again changes
    nothing.

    Args:
        model: on the attention `sdpa` or `eager`, or on another that takes `packing` itself.
    """
    implementation = model.config._attn_implementation
    name = f"{PREFIX}{implementation}"
    if implementation not in ("sdpa", "eager"):
        AttentionInterface.register(name, AttentionInterface()[implementation])
        AttentionMaskInterface.register(name, _no_mask)
        return name
    additive = implementation == "eager"
    if additive:
        name += f"_of_{model.config.model_type}"
    words = eager_attention(model) if additive else AttentionInterface()[implementation]

    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        _mask: Tensor | None,
        *,
        packing: Packing,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        return attend_packed(
            words, module, query, key, value, packing=packing, additive_mask=additive, **kwargs
        )

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, _no_mask)
    return name


def _no_mask(*_: Any, **__: Any) -> None:
    """Makes no mask: the layout says who sees whom."""


@contextlib.contextmanager
def using_attention(model: Any, name: str) -> Iterator[None]:
    """Runs the model on a registered attention inside, and on its own again afterwards."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


@dataclass(frozen=True)
class Bucket:
    """Sequences of about one length, which attention computes together: B·T slots."""

    num_sequences: int
    length: int
    """T: of the longest; the slots behind a shorter one's end are padding."""


@dataclass(frozen=True)
class Packing:
    """Where attention finds the words of each sequence in a row of nodes."""

    buckets: tuple[Bucket, ...]
    """In the order of the slots."""
    node_of_slot_M: Tensor
    """The node whose query, key and value go into a slot; for padding, any of its sequence."""
    slot_of_node_N: Tensor
    """The slot whose output a node takes: of all sequences that share it, one."""
