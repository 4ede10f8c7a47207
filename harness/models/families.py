"""The model families that zbench knows: decoders on transformers' attention interface.

What differs between them and matters here: where an attention layer and its projections are, what
else lies between a hidden state and its key (norms, clipping), and how many parameters they have.
Every family here passes the laws of tests/methods/test_laws.py on a tiny random model; any
other is refused by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


Projection = Callable[[Any, "Tensor"], "tuple[Tensor, Tensor]"]
"""From an attention layer and hidden states (L, D): keys and values, each (L, G, d), the keys
without rotary positions. L is the prompt length, G the key-value heads, d the head size."""
Layout = Literal["separate", "fused", "interleaved"]
"""Layout of the query, key and value weights: three matrices, one (q, k, v), or one by head."""


@dataclass(frozen=True)
class Family:
    """One model family; names and counts are those of transformers' implementation."""

    model_type: str
    """As in config.json."""
    title: str
    project: Projection
    layout: Layout = "separate"
    attention: str = "self_attn"
    """Attribute of a decoder layer."""
    norms_per_layer: int = 2
    """Norms of the hidden size, weight only, in each layer; one more ends the decoder."""
    key_norm: Literal["head", "all heads"] | None = None
    """Norms of queries and keys: over one head's size, or over all heads' together."""
    projection_biases: bool = False
    """Whether the projections of queries, keys and values have biases."""
    soft_capped: bool = False
    """Whether attention scores are soft-capped, which SDPA cannot."""
    starts_with_bos: bool = False
    """Whether its models were pre-trained on texts that begin with BOS."""

    def projects_linearly(self, module: Any) -> bool:
        """Whether keys and values of an attention layer are linear in hidden states, up to a bias,
        and its scores in the keys."""
        clipped = getattr(module.config, "clip_qkv", None) is not None
        return self.key_norm is None and not self.soft_capped and not clipped


def _separate(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    shape_LGd = (rows_LD.shape[0], -1, module.head_dim)
    return module.k_proj(rows_LD).view(shape_LGd), module.v_proj(rows_LD).view(shape_LGd)


def _head_normed(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    # The queries that meet these keys are normed too: unnormed keys would have another scale.
    key_LGd, value_LGd = _separate(module, rows_LD)
    return module.k_norm(key_LGd), value_LGd


def _normed(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    shape_LGd = (rows_LD.shape[0], -1, module.head_dim)
    key_LK = module.k_norm(module.k_proj(rows_LD))
    return key_LK.view(shape_LGd), module.v_proj(rows_LD).view(shape_LGd)


def _clipped(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    key_LGd, value_LGd = _separate(module, rows_LD)
    bound = module.config.clip_qkv
    if bound is None:
        return key_LGd, value_LGd
    return key_LGd.clamp(-bound, bound), value_LGd.clamp(-bound, bound)


def _fused(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    query_size = module.config.num_attention_heads * module.head_dim
    size = module.num_key_value_heads * module.head_dim
    # The queries' part of the product is not needed, but a slice of the weight would bypass an
    # adapter or a quantised layer that replaces the projection.
    _, key_LK, value_LK = module.qkv_proj(rows_LD).split([query_size, size, size], dim=-1)
    shape_LGd = (rows_LD.shape[0], -1, module.head_dim)
    return key_LK.reshape(shape_LGd), value_LK.reshape(shape_LGd)


def _interleaved(module: Any, rows_LD: Tensor) -> tuple[Tensor, Tensor]:
    rows_LHd3 = module.query_key_value(rows_LD).view(rows_LD.shape[0], -1, 3 * module.head_size)
    _, key_LHd, value_LHd = rows_LHd3.chunk(3, dim=-1)
    return key_LHd, value_LHd


_gemma = functools.partial(Family, norms_per_layer=4, starts_with_bos=True)
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", "Llama 1-3", _separate, starts_with_bos=True),
        Family("mistral", "Mistral", _separate, starts_with_bos=True),
        Family("qwen2", "Qwen2", _separate, projection_biases=True),
        Family("qwen3", "Qwen3", _head_normed, key_norm="head"),
        _gemma("gemma2", "Gemma 2", _separate, soft_capped=True),
        _gemma("gemma3_text", "Gemma 3 (text)", _head_normed, key_norm="head"),
        Family("phi3", "Phi-3", _fused, layout="fused"),
        Family("gpt_neox", "GPT-NeoX", _interleaved, layout="interleaved", attention="attention"),
        Family("olmo", "OLMo", _clipped, norms_per_layer=0),
        Family("olmo2", "OLMo 2", _normed, key_norm="all heads"),
    )
}
"""By `model_type`."""

_REASONS = {
    "gemma3": "it wraps a vision tower; give the text model's own checkpoint (gemma3_text)",
    "gemma3n": "its layers share keys and values",
    "gemma4": "its layers share keys and values",
    "gpt_oss": "its softmax has a sink beside the tokens",
    "gpt2": "its positions are added to the embeddings, so that its queries carry no rotation",
    "llama4": "its attention is chunked and its layers are mixtures of experts",
    "deepseek_v3": "its keys come from a latent that is partly rotated",
    "cohere": "its logits are scaled after the head",
    "mixtral": "its layers are mixtures of experts",
    "qwen3_moe": "its layers are mixtures of experts",
    "mamba": "it has no attention",
}


def refusal(model_type: object) -> str:
    """Why a model family is not supported, and which ones are; one line."""
    reason = _REASONS.get(str(model_type), "its attention has not been checked")
    return (
        f"model_type {model_type!r} is not supported ({reason}); supported: {', '.join(FAMILIES)}"
    )
