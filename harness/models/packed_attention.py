"""Attention within each sequence of a packed row, so that no document attends to another.

A packed row (`harness.training.packing`) holds the tokens of many sequences, a prefix that several
share only once. Linear layers and norms run on the row as it is. Attention gathers it into buckets
of sequences of about one length, (B, T) each, and runs the model's own attention on every bucket,
causal and without a mask: a mask over the whole row, (N, N), is never made. Where a kernel takes
sequences of unlike lengths in one call, that is done instead: see `varlen_attention.py`.

Shapes: N tokens of the row (nodes of its prefix tree), M slots of all buckets (B·T of each, with
padding), S sequences of all buckets, B of one, T their length, H query heads, G key-value heads, d
head size. A name such as `query_1HNd` ends in its tensor's shape.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface

from harness.models.documents import Documents
from harness.models.kernel_check import KernelCheck
from harness.models.varlen_attention import attend_documents

PACKED_ATTENTION_PREFIX = "packed_"
"""Begins the AttentionInterface names of attention over packed rows."""

VARLEN = "variable-length attention"
"""Its name where it is compared with attention by buckets."""

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]
"""As in transformers' AttentionInterface: `attention(module, query, key, value, mask, **kwargs)`
gives the output (B, T, H, d), and the attention weights or None."""


@dataclass(frozen=True)
class Bucket:
    """Sequences of about one length, which attention computes together: B·T slots."""

    num_sequences: int
    length: int
    """T: of the longest; the slots behind a shorter one's end are padding."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of each sequence are in a packed row."""

    buckets: tuple[Bucket, ...]
    """In the order of the slots."""
    node_of_slot_M: Tensor
    """The token whose query, key and value go into a slot; for padding, any of its sequence."""
    slot_of_node_N: Tensor
    """The slot whose output a token takes: of one of the sequences that share it."""
    picture_of_sequence_S: Tensor | None = None
    """Where sequences have pictures: each one's row of `PassPictures.projected_PD`, in the order of
    the buckets' slots."""
    documents: Documents | None = None
    """For variable-length attention; None where training attends by buckets."""
    check: KernelCheck | None = None
    """Compares variable-length attention with that by buckets in this pass."""

    @property
    def varlen(self) -> bool:
        """Whether attention is `documents`'; not where this pass has shown that it does not run."""
        return self.documents is not None and (
            self.check is None or VARLEN not in self.check.failed
        )


class _TakeRows(torch.autograd.Function):
    """`x[rows]`, whose gradient is summed in fp32 over the copies of each row.

    Hundreds of sequences share a prefix: in bf16 the sum of their gradients would stop growing.
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
    """`x[rows]`, (M, ...) of (N, ...), whose gradient is summed in fp32."""
    taken: Tensor = _TakeRows.apply(x, rows)
    return taken


def attend_row(
    attention: AttentionFunction,
    module: Any,
    query_1HNd: Tensor,
    key_1GNd: Tensor,
    value_1GNd: Tensor,
    mask: Tensor | None = None,
    *,
    packing: Packing,
    prompt_kv: tuple[Tensor, Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row, as the training attends.

    The arguments are those of `attend_packed`.

    Args:
        prompt_kv: keys and values that all queries of a sequence see beside its own, (G, L, d), or
            with a prompt for each row of the pictures (P, G, L, d); `attention` takes them.
    """
    window = kwargs.get("sliding_window")
    prompts = () if prompt_kv is None else prompt_kv

    def by_buckets(query: Tensor, key: Tensor, value: Tensor, *prompts: Tensor) -> Tensor:
        given = {**kwargs, "prompt_kv": prompts} if prompts else kwargs
        output, _ = attend_packed(
            attention, module, query, key, value, mask, packing=packing, **given
        )
        return output

    def by_documents(query: Tensor, key: Tensor, value: Tensor, *prompts: Tensor) -> Tensor:
        assert packing.documents is not None
        return attend_documents(
            query, key, value, documents=packing.documents, prompt_kv=prompts or None,  # type: ignore[arg-type]
            scaling=kwargs.get("scaling"), window=None if prompts else window,
        )  # fmt: skip

    inputs = (query_1HNd, key_1GNd, value_1GNd, *prompts)
    # The kernel's window would hide the prompt, which stands in front of the first token.
    longest = max(bucket.length for bucket in packing.buckets)
    hidden = bool(prompts) and window is not None and window < longest
    if packing.check is not None and packing.varlen and not hidden:
        packing.check.compare(VARLEN, by_documents, by_buckets, inputs)
    taken = by_documents if packing.varlen and not hidden else by_buckets
    return taken(*inputs), None


def attend_packed(
    attention: AttentionFunction,
    module: Any,
    query_1HNd: Tensor,
    key_1GNd: Tensor,
    value_1GNd: Tensor,
    _mask: Tensor | None = None,
    *,
    packing: Packing,
    causal: bool,
    of_pictures: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row, (1, N, H, d).

    It has an attention function's own arguments; the mask it is given is of no use.

    Args:
        attention: runs on each bucket.
        query_1HNd: with rotary positions, as the keys.
        causal: whether `attention` is causal where it is given no mask; else it always gets one
            to add to the scores.
        of_pictures: whether `attention` is told the pictures of a bucket's sequences, `picture_B`.
        **kwargs: for `attention`; a `sliding_window` is heeded in the mask.
    """
    # By split: the backward of each slice would fill a whole row with zeros and add it.
    sizes = [bucket.num_sequences * bucket.length for bucket in packing.buckets]
    slots = [
        take_rows(tensor[0].transpose(0, 1), packing.node_of_slot_M).split(sizes)
        for tensor in (query_1HNd, key_1GNd, value_1GNd)
    ]
    pictures: Sequence[Tensor] = ()
    if of_pictures:
        assert packing.picture_of_sequence_S is not None
        pictures = packing.picture_of_sequence_S.split(
            [one.num_sequences for one in packing.buckets]
        )
    outputs = []
    for index, bucket in enumerate(packing.buckets):
        shape = (bucket.num_sequences, bucket.length)
        batch = [parts[index].unflatten(0, shape).transpose(1, 2) for parts in slots]
        mask = _bucket_mask(bucket, batch[0], kwargs.get("sliding_window"), causal=causal)
        if of_pictures:
            kwargs["picture_B"] = pictures[index]
        output_BTHd, _ = attention(module, *batch, mask, **kwargs)
        outputs.append(output_BTHd.flatten(0, 1))
    output_MHd = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return take_rows(output_MHd, packing.slot_of_node_N)[None], None


def _bucket_mask(
    bucket: Bucket, query_BHTd: Tensor, window: int | None, *, causal: bool
) -> Tensor | None:
    """A causal mask with the sliding window, (1, 1, T, T), bool or added; None where not needed."""
    length, device = bucket.length, query_BHTd.device
    window = length if window is None else window
    if causal and length <= window:
        return None
    steps_T = torch.arange(length, device=device)
    distance_TT = steps_T[:, None] - steps_T
    visible_TT = (distance_TT >= 0) & (distance_TT < window)
    if causal:
        return visible_TT[None, None]
    zeros_TT = torch.zeros(length, length, dtype=query_BHTd.dtype, device=device)
    return zeros_TT.masked_fill(~visible_TT, torch.finfo(query_BHTd.dtype).min)[None, None]


def own_attention(model: Any) -> tuple[str, AttentionFunction]:
    """The attention function that a model runs on, and a name that belongs to it alone.

    `eager` is another function in each family: that in the module of its decoder, which a user's
    subclass of the model does not stand in.
    """
    implementation: str = model.config._attn_implementation
    if implementation != "eager":
        return implementation, AttentionInterface()[implementation]
    code = sys.modules[type(model.get_decoder()).__module__]
    return f"eager_of_{model.config.model_type}", code.eager_attention_forward


def implementation_of(name: str) -> str:
    """The `attn_implementation` that a name of `own_attention` was made from."""
    return name.partition("_of_")[0]


def register_packed(model: Any) -> str:
    """Registers an AttentionInterface function for packed rows; returns its name.

    Layers must be passed the argument `packing`. Registering again changes nothing.

    Args:
        model: on the attention `sdpa` or `eager`, or on another that takes `packing` itself.
    """
    own_name, attention = own_attention(model)
    if model.config._attn_implementation in ("sdpa", "eager"):
        attention = functools.partial(attend_row, attention, causal=own_name == "sdpa")
    name = f"{PACKED_ATTENTION_PREFIX}{own_name}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _no_mask)
    return name


def _no_mask(*_: Any, **__: Any) -> None:
    """Makes no mask: the packing says which tokens attend to which."""


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
