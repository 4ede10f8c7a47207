"""Fewer launches for passes that train nothing, in half precision on CUDA.

A pass of one token per sequence is bound by its launches: at 7B half of them are norms and rotary
positions. Inside, norms run as one kernel each, and queries and keys are rotated together. Both
round in fewer places than transformers', so that low bits differ. Elsewhere nothing changes.

Shapes: B sequences, T tokens, H query heads, G key and value heads, d head size.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama import modeling_llama

from harness.models.fused_norms import FusedNorms

ROTATE = "apply_rotary_pos_emb"
"""transformers' function in the module of each family."""


class FusedInference:
    """A model's way to run in fewer launches; `with fused():` around a pass.

    Args:
        model: in evaluation mode; what it is made of stays the same.
    """

    def __init__(self, model: Any) -> None:
        self._on_cuda, self._own_dtype = self.on_cuda(model), model.dtype
        if self._on_cuda:
            self._norms = FusedNorms(model)
            self._code = _code_with_usual_rotation(model)

    @staticmethod
    def on_cuda(model: Any) -> bool:
        """Whether a model runs on CUDA."""
        return bool(model.device.type == "cuda")

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Runs the passes inside so, where they are in half precision on CUDA."""
        halves = (torch.bfloat16, torch.float16)
        if not self._on_cuda or compute_dtype("cuda", self._own_dtype) not in halves:
            yield
            return
        usual = None if self._code is None else getattr(self._code, ROTATE)
        self._norms.install()
        try:
            if usual is not None:
                setattr(self._code, ROTATE, FusedRotation(usual))
            yield
        finally:
            self._norms.remove()
            if usual is not None:
                setattr(self._code, ROTATE, usual)


def compute_dtype(device_type: str, own: torch.dtype) -> torch.dtype:
    """What products are computed in: autocast's type, or a model's own."""
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return own


class FusedRotation:
    """`apply_rotary_pos_emb` of LLaMA, on queries and keys together.

    With x = (x1, x2), the halves of a head, x · cos + (-x2, x1) · sin is x · cos plus x shifted by
    half a head times (-sin1, sin2); the latter is made once for all layers.

    Args:
        usual: transformers' own, for types of which two differ.
    """

    def __init__(self, usual: Any) -> None:
        self._usual = usual
        self._sine: Tensor | None = None
        self._parts: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Rotated queries (B, H, T, d) and keys (B, G, T, d); `cos` and `sin` are (B, T, d)."""
        if unsqueeze_dim != 1 or q.dtype != k.dtype:
            usual: tuple[Tensor, Tensor] = self._usual(q, k, cos, sin, unsqueeze_dim)
            return usual
        half = q.shape[-1] // 2
        if sin is not self._sine or self._parts is None:
            signed_BTd = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._sine, self._parts = sin, (cos[:, None], signed_BTd[:, None])
        cos_B1Td, signed_B1Td = self._parts
        both_BFTd = torch.cat([q, k], dim=1)
        shifted_BFTd = both_BFTd.roll(half, dims=-1)
        rotated_BFTd = torch.addcmul(both_BFTd * cos_B1Td, shifted_BFTd, signed_B1Td)
        # In full fine-tuning sines are in fp32; attention would cast all cached keys in each pass.
        rotated_BFTd = rotated_BFTd.to(q.dtype)
        query_BHTd, key_BGTd = rotated_BFTd.split([q.shape[1], k.shape[1]], dim=1)
        return query_BHTd, key_BGTd


def _code_with_usual_rotation(model: Any) -> Any:
    """The module of a model's decoder, if it rotates word for word as LLaMA's does; else None."""
    code = sys.modules[type(model.get_decoder()).__module__]
    return code if _rotates_as_usual(code) else None


@functools.cache
def _rotates_as_usual(code: Any) -> bool:
    own, usual = (getattr(one, ROTATE, None) for one in (code, modeling_llama))
    if own is None or usual is None:
        return False
    return inspect.getsource(own) == inspect.getsource(usual)
