"""Which attention kernel the card takes: in torch a C++ function that asks the CUDA build."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tests.gpu_rehearsal.cards import CardSpec
from tests.gpu_rehearsal.counting import AttentionCall, Counts

if TYPE_CHECKING:
    from tests.gpu_rehearsal.card import Card

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
AMPERE = (8, 0)


def choose_kernel(spec: CardSpec, q: Any, k: Any, v: Any, mask: Any, causal: bool) -> str:
    """Flash, then memory-efficient, then math, as sdp_utils.cpp of torch has it for CUDA.

    cuDNN, which torch may choose on Hopper, is left out.

    Args:
        q: queries, (batch, heads, queries, head size); k and v likewise.
    """
    half = q.dtype in HALF
    dense = all(one.dim() == 4 and one.stride(-1) == 1 for one in (q, k, v))
    if not q.dtype == k.dtype == v.dtype or not dense or min(q.numel(), k.numel()) == 0:
        return "math"
    size = q.shape[-1]
    aligned = q.shape[2] == k.shape[2] or not causal
    flash = spec.capability >= AMPERE and half and mask is None
    if flash and size <= 256 and size == v.shape[-1] and aligned:
        return "flash"
    ungrouped = q.shape[1] == k.shape[1] == v.shape[1]  # grouped heads: flash alone has them
    known = q.dtype != torch.bfloat16 or spec.capability >= AMPERE
    known = known and q.dtype in (*HALF, torch.float32)
    if known and ungrouped and size % (8 if half else 4) == 0 and aligned:
        return "efficient"
    return "math"


def attention_on(card: Card, original: Any) -> Any:
    """`scaled_dot_product_attention` as the card would run it; on the CPU torch's `original`."""

    def attend(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: Any = None,
        enable_gqa: bool = False,
    ) -> Any:
        if query.device.type != "cuda":
            return original(
                *(query, key, value, attn_mask, dropout_p, is_causal),
                scale=scale,
                enable_gqa=enable_gqa,
            )
        if torch.is_autocast_enabled("cuda"):  # which a Python function would be passed by
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = (one.to(dtype) for one in (query, key, value))
            if attn_mask is not None and attn_mask.dtype != torch.bool:
                attn_mask = attn_mask.to(dtype)
        with torch.autocast("cuda", enabled=False):
            _check_dtypes(query, key, value, attn_mask)
            kernel = choose_kernel(card.spec, query, key, value, attn_mask, is_causal)
            _count(card, kernel, query, key, attn_mask, is_causal)
            if kernel == "flash":
                return aten._scaled_dot_product_flash_attention(
                    query, key, value, dropout_p, is_causal, False, scale=scale
                )[0]
            if kernel == "efficient":
                mask = _bias(attn_mask, query, key)
                tensors = (query, key, value)
                wants = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
                return aten._scaled_dot_product_efficient_attention(
                    *tensors, mask, wants, dropout_p, is_causal, scale=scale
                )[0]
            return original(
                *(query, key, value, attn_mask, dropout_p, is_causal),
                scale=scale,
                enable_gqa=enable_gqa,
            )

    return attend


def count_varlen(counts: Counts, name: str, args: Any, known: Callable[[Any], Any]) -> float:
    """Counts a call of the kernel with variable lengths, and returns its FLOPs.

    Those of each document by its own length, as of an SDPA call without a mask: torch's formula
    takes the longest for all where it cannot read the bounds.

    Args:
        known: gives the numbers of a tensor of bounds.
    """
    forward = name == "_varlen_attn"
    query, key, value = args[:3] if forward else args[1:4]
    if not query.dtype == key.dtype == value.dtype or query.dtype not in HALF:
        raise RuntimeError(
            "FlashAttention only supports fp16 and bf16, of one dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} (rehearsed)"
        )
    bounds = args[3:5] if forward else args[6:8]
    queries, keys = (itertools.pairwise(known(one)) for one in bounds)
    pairs, documents = 0, 0
    for (start, end), (first, last) in zip(queries, keys, strict=True):
        pairs += (end - start) * (last - first)
        documents += 1
    flops = 2.0 * query.shape[1] * pairs * (query.shape[2] + value.shape[2])
    if not forward:
        return 2.5 * flops
    shape, shown = tuple(query.shape), f"{documents} documents"
    call = AttentionCall("varlen", shape, key.shape[0], _short(query.dtype), True, shown)
    counts.attention[call] += 1
    return flops


def _check_dtypes(query: Any, key: Any, value: Any, mask: Any) -> None:
    """Raises torch's own errors."""
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if mask is not None and mask.dtype not in (torch.bool, query.dtype, torch.float32):
        raise RuntimeError("Expected attn_mask dtype to be bool or float or to match query dtype")


def _count(card: Card, kernel: str, query: Any, key: Any, mask: Any, causal: bool) -> None:
    shown = None if mask is None else (tuple(mask.shape), _short(mask.dtype))
    shape = tuple(query.shape)
    call = AttentionCall(kernel, shape, key.shape[2], _short(query.dtype), causal, shown)
    card.counts.attention[call] += 1


def _bias(mask: Any, query: Any, key: Any) -> Any:
    """The mask as the efficient kernel takes it: added, aligned, one for each head."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        floor = torch.full((), float("-inf"), dtype=query.dtype, device=query.device)
        mask = torch.where(mask, torch.zeros_like(floor), floor)
    if any(step % 8 for step in mask.stride()[:-1]):  # rows are copied to begin at multiples of 8
        odd = 8 - mask.shape[-1] % 8
        mask = torch.nn.functional.pad(mask, (0, odd))[..., : mask.shape[-1]]
    return mask.expand(*query.shape[:3], key.shape[2])


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
