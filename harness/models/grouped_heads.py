"""Keys and values of grouped heads, repeated where SDPA would else take its slowest kernel.

transformers hands fewer key-value heads than query heads to SDPA as they are (`enable_gqa`). On
CUDA flash attention alone takes them, in half precision from Ampere on. In fp32, and on older
cards, SDPA then falls back on plain operations, which make the scores of a whole batch, (B, H, T,
T). With the heads repeated it takes the memory-efficient kernel: the same values.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward


def takes_grouped_heads(query: Tensor) -> bool:
    """Whether SDPA without a mask has a fast kernel for fewer key-value heads; True off CUDA."""
    device = query.device
    if device.type != "cuda":
        return True
    dtype = query.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    half = dtype in (torch.bfloat16, torch.float16)
    return half and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' `sdpa`, with its arguments; grouped heads are repeated where that is faster."""
    groups = query.shape[1] // key.shape[1]
    cached = kwargs.get("cache") is not None
    if attention_mask is None and groups > 1 and not cached and not takes_grouped_heads(query):
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        # All that transformers asks of it: that no head is repeated again, and the direction.
        module = SimpleNamespace(
            num_key_value_groups=1, is_causal=getattr(module, "is_causal", True)
        )
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **kwargs
    )
    return found


def repeat_grouped_heads() -> None:
    """Makes this process's models on `sdpa` run `attend`; repeating it changes nothing."""
    AttentionInterface.register("sdpa", attend)
