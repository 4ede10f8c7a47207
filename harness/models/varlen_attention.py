"""Attention over a packed row in one call: torch's variable-length kernel, one per layer.

Flash attention takes sequences of unlike lengths end to end, with their bounds: no buckets and no
padding. It runs in half precision on CUDA, from Ampere on; `why_buckets` says where it cannot. On
a CPU `exact_varlen_attn` stands in for it: the same arguments, the formula document by document.

`documents.py` lays the row out: a document has the queries of its own nodes, and the keys of its
whole sequence. The kernel's causal mask is aligned at the bottom right: the last query sees all
keys, the one before it all but the last. A prompt's keys in front of a document's are therefore
seen by all its queries.

Shapes: N nodes of a row, K keys of all documents, S documents, H query heads, G key-value heads, d
head size, P prompts of L virtual tokens. A name such as `query_NHd` ends in its tensor's shape.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from harness.models.documents import Documents, Keys, Repeated

AttentionPath = Literal["varlen", "buckets"]
"""How a training attends over packed rows: `attend_documents`, or `attend_packed` by buckets."""

CAUSAL = (-1, 0)
"""The kernel's window (left, right) of queries that see all keys up to their own."""
LARGEST_HEAD = 256
"""Head size that flash attention takes."""
LARGEST_HEAD_OF_SMALL_CARDS = 192
"""The same for the backward pass on cards with less shared memory than an A100 or H100."""


class _TakeKeys(torch.autograd.Function):
    """`x[rows]`, whose gradient is summed in fp32 over the copies of each row.

    Most rows have one copy, whose gradient is theirs: only the others are summed.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, rows: Tensor, repeated: Repeated) -> Tensor:
        context.repeated = repeated
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        repeated = context.repeated
        total = gradient.index_select(0, repeated.first_N)
        copies = gradient.index_select(0, repeated.copies_C)
        copies = copies.to(torch.promote_types(gradient.dtype, torch.float32))
        sums = copies.new_zeros((len(repeated.rows_R), *gradient.shape[1:]))
        sums.index_add_(0, repeated.row_of_copy_C, copies)
        return total.index_copy_(0, repeated.rows_R, sums.to(gradient.dtype)), None, None


def _take(x: Tensor, keys: Keys) -> Tensor:
    if keys.rows_K is None:
        return x
    taken: Tensor = _TakeKeys.apply(x, keys.rows_K, keys.repeated)
    return taken


def attend_documents(
    query_1HNd: Tensor,
    key_1GNd: Tensor,
    value_1GNd: Tensor,
    *,
    documents: Documents,
    prompt_kv: tuple[Tensor, Tensor] | None = None,
    scaling: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Causal attention within each document, (1, N, H, d).

    Args:
        query_1HNd: with rotary positions, as the keys.
        prompt_kv: keys and values in front of a document's own, which all its queries see: (G, L,
            d), or for each row of the pictures (P, G, L, d).
        scaling: of the scores; 1 / sqrt(d) where None.
        window: how many tokens a query sees, its own included; None: all. Not with a prompt.
    """
    dtype = _half(query_1HNd)
    query_NHd, key, value = (
        one[0].transpose(0, 1).to(dtype) for one in (query_1HNd, key_1GNd, value_1GNd)
    )
    keys = documents.keys
    if prompt_kv is not None:
        assert window is None
        key_bGLd, value_bGLd = prompt_kv
        key = torch.cat([prompt_rows(key_bGLd).to(dtype), key])
        value = torch.cat([prompt_rows(value_bGLd).to(dtype), value])
        keys = documents.keys_with(*prompts_of(key_bGLd), tokens=True)
    seen = CAUSAL if window is None or window >= keys.longest else (window - 1, 0)
    return _attend(query_NHd, key, value, documents, keys, scaling, seen)


def attend_prompts(
    query_1HNd: Tensor,
    prompt_kv: tuple[Tensor, Tensor],
    *,
    documents: Documents,
    scaling: float | None = None,
) -> Tensor:
    """Attention of each document's queries to its picture's prompt alone, (1, N, H, d).

    Args:
        prompt_kv: keys and values of each row of the pictures, (P, G, L, d).
    """
    dtype = _half(query_1HNd)
    keys = documents.keys_with(*prompts_of(prompt_kv[0]), tokens=False)
    key, value = (prompt_rows(one).to(dtype) for one in prompt_kv)
    query_NHd = query_1HNd[0].transpose(0, 1).to(dtype)
    return _attend(query_NHd, key, value, documents, keys, scaling, (-1, -1))


def _attend(
    query_NHd: Tensor, key: Tensor, value: Tensor, documents: Documents, keys: Keys,
    scaling: float | None, window: tuple[int, int],
) -> Tensor:  # fmt: skip
    attend: Callable[..., Any] = exact_varlen_attn
    if query_NHd.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        attend = varlen_attn
    output: Tensor = attend(
        query_NHd,
        _take(key, keys),
        _take(value, keys),
        documents.query_bounds,
        keys.bounds,
        documents.longest_query,
        keys.longest,
        scale=scaling,
        window_size=window,
        enable_gqa=query_NHd.shape[1] != key.shape[1],
    )
    return output[None]


def _half(tensor: Tensor) -> torch.dtype:
    """The precision to compute in: autocast casts SDPA's arguments, but not the kernel's."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def prompts_of(key_bGLd: Tensor) -> tuple[int, int]:
    """P and L of prompts' keys, (G, L, d) or (P, G, L, d)."""
    return (len(key_bGLd) if key_bGLd.dim() == 4 else 1), key_bGLd.shape[-2]


def prompt_rows(one_bGLd: Tensor) -> Tensor:
    """A prompt's keys or values as rows, (P · L, G, d)."""
    return one_bGLd.transpose(-3, -2).flatten(0, -3)


def exact_varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn` by its formula, document by document, on any device.

    It reads the bounds: the host waits for them.
    """
    left, right = window_size
    query_ends, key_ends = cu_seq_q.tolist(), cu_seq_k.tolist()
    outputs = []
    for (start, end), (first, last) in zip(
        itertools.pairwise(query_ends), itertools.pairwise(key_ends), strict=True
    ):
        num_queries, num_keys = end - start, last - first
        assert num_queries <= max_q
        assert num_keys <= max_k
        # Aligned at the bottom right: the last query is at the last key.
        at = torch.arange(num_queries, device=query.device)[:, None] + num_keys - num_queries
        steps = torch.arange(num_keys, device=query.device) - at
        seen = torch.ones_like(steps, dtype=torch.bool)
        seen = seen if left < 0 else seen & (steps >= -left)
        seen = seen if right < 0 else seen & (steps <= right)
        output = functional.scaled_dot_product_attention(
            query[None, start:end].transpose(1, 2),
            key[None, first:last].transpose(1, 2),
            value[None, first:last].transpose(1, 2),
            attn_mask=seen,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


def why_buckets(model: Any, device: torch.device, dtype: torch.dtype | None) -> str | None:
    """Why a training attends by buckets; None where variable-length attention does the same.

    Args:
        model: a causal language model, without PEFT's wrapper.
        dtype: of autocast; None in fp32.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return "it is a kernel of CUDA"
    if dtype not in (torch.bfloat16, torch.float16):
        return "it is a kernel of half precision"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0, the card has {'.'.join(map(str, capability))}"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} does not have it"
    config = model.config
    if not str(config._attn_implementation).endswith("sdpa"):
        return f"the model runs on {config._attn_implementation}"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    small = capability not in ((8, 0), (9, 0), (10, 0))
    largest = LARGEST_HEAD_OF_SMALL_CARDS if small else LARGEST_HEAD
    if size % 8 or size > largest:
        return f"a head of {size} is no multiple of 8 up to {largest}"
    return None
