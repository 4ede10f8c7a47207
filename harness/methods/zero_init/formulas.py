"""The two forms of attention to a prompt, on its projected keys and values; see `attention.py`.

Shapes: B batch, T queries, S keys of tokens, H query heads, G key-value heads, d head size, L
prompt length; b is B where each row has a prompt of its own, else absent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import MethodError
from harness.models.packed_attention import AttentionFunction


def gated_prompt_attention(
    query_BHTd: Tensor,
    key_bGLd: Tensor,
    value_bGLd: Tensor,
    strength_H11: Tensor,
    *,
    scaling: float | None,
    soft_cap: float | None = None,
) -> Tensor:
    """Zero-init's second term, tanh(g) softmax(Q K_p^T · scaling) V_p: (B, T, H, d).

    Every query attends to all L virtual tokens. tanh(g) scales the L values instead of the T
    outputs: the same by linearity, and cheaper.

    Args:
        query_BHTd: rotated queries.
        key_bGLd: K_p, (G, L, d), or with a prompt for each row of the batch (B, G, L, d).
        value_bGLd: V_p.
        strength_H11: tanh(g).
        scaling: of the scores; 1 / sqrt(d) where None.
        soft_cap: c, where the family bounds its scores s by c · tanh(s / c), as Gemma 2 does.
    """
    gated_kv = gated_keys_values(key_bGLd, value_bGLd, strength_H11, query_BHTd.shape[1])
    return attend_to_prompt(query_BHTd, *gated_kv, scaling=scaling, soft_cap=soft_cap)


def attend_to_prompt(
    query_BHTd: Tensor,
    key_bHLd: Tensor,
    gated_bHLd: Tensor,
    *,
    scaling: float | None,
    soft_cap: float | None = None,
) -> Tensor:
    """The second term from `gated_keys_values`; see `gated_prompt_attention`."""
    batch, _, _, size = query_BHTd.shape
    if soft_cap is not None:
        scores_BHTL = query_BHTd @ key_bHLd.transpose(-2, -1)
        scores_BHTL = soft_cap * torch.tanh(scores_BHTL * (scaling or size**-0.5) / soft_cap)
        weights_BHTL = torch.softmax(scores_BHTL, dim=-1, dtype=torch.float32)
        return (weights_BHTL.to(query_BHTd.dtype) @ gated_bHLd).transpose(1, 2)
    output_BHTd = functional.scaled_dot_product_attention(
        query_BHTd,
        key_bHLd.expand(batch, -1, -1, -1),
        gated_bHLd.expand(batch, -1, -1, -1),
        scale=scaling,
    )
    return output_BHTd.transpose(1, 2)


def gated_keys_values(
    key_bGLd: Tensor, value_bGLd: Tensor, strength_H11: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """K_p and tanh(g) V_p for each query head, (H, L, d) or (B, H, L, d)."""
    heads_per_kv = heads // key_bGLd.shape[-3]
    key_bHLd = key_bGLd.repeat_interleave(heads_per_kv, dim=-3)
    value_bHLd = value_bGLd.repeat_interleave(heads_per_kv, dim=-3)
    return key_bHLd, (strength_H11 * value_bHLd).to(value_bHLd.dtype)


def joint_attention(
    module: nn.Module,
    query_BHTd: Tensor,
    key_BGSd: Tensor,
    value_BGSd: Tensor,
    mask: Tensor | None,
    *,
    prompt_kv: tuple[Tensor, Tensor],
    base_attention: AttentionFunction,
    causal: bool,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """random-init's one softmax over prompt and tokens: (B, T, H, d), and the weights or None.

    The arguments are those of `PromptAttention.forward`; every query attends to the whole prompt.

    Args:
        prompt_kv: K_p and V_p, each (G, L, d), or with a prompt for each row (B, G, L, d).

    Raises:
        MethodError: the keys are in a paged cache (continuous batching).
    """
    if kwargs.get("cache") is not None:
        raise MethodError("random-init: continuous batching is not supported; use generate()")
    key_bGLd, value_bGLd = prompt_kv
    (batch, heads, num_queries, size), length = query_BHTd.shape, key_bGLd.shape[-2]
    # One query, as in decoding with a cache, attends to all keys.
    shifted = causal and mask is None and num_queries > 1
    if shifted:
        # In a causal kernel, row i attends to columns 0..i. With L zero queries in front, whose
        # outputs are dropped, query t is row L + t and attends to the L columns of the prompt and
        # to tokens 0..t: no mask has to be made. Precondition: prefill. With mask None and T > 1
        # transformers guarantees no past keys.
        query_BHTd = torch.cat([query_BHTd.new_zeros(batch, heads, length, size), query_BHTd], 2)
        # A static cache has unused entries behind the T tokens.
        key_BGSd, value_BGSd = key_BGSd[:, :, :num_queries], value_BGSd[:, :, :num_queries]
    elif mask is not None:
        visible = True if mask.dtype == torch.bool else 0.0
        mask = functional.pad(mask, (length, 0), value=visible)
    output_BTHd, weights = base_attention(
        module,
        query_BHTd,
        torch.cat([key_bGLd.expand(batch, -1, -1, -1), key_BGSd], dim=2),
        torch.cat([value_bGLd.expand(batch, -1, -1, -1), value_BGSd], dim=2),
        mask,
        **kwargs,
    )
    # Shifted implies sdpa, whose weights are None.
    return (output_BTHd[:, length:] if shifted else output_BTHd), weights
