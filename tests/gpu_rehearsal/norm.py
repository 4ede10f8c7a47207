"""`rms_norm` as the card runs it: by one kernel, where torch's CPU build has several."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

_library = torch.library.Library("rehearsal", "DEF")
_library.define("fused_rms_norm(Tensor x, Tensor weight) -> (Tensor, Tensor)")


@torch.library.register_fake("rehearsal::fused_rms_norm", lib=_library)
def _fused_rms_norm(x: Any, weight: Any) -> Any:
    return torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


class _FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any, weight: Any, shape: Any) -> Any:
        output, rstd = torch.ops.rehearsal.fused_rms_norm(x, weight)
        context.save_for_backward(x, weight, rstd)
        context.shape = shape
        return output

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        x, weight, rstd = context.saved_tensors
        wanted = list(context.needs_input_grad[:2])
        return *aten._fused_rms_norm_backward(
            gradient, x, context.shape, rstd, weight, wanted
        ), None


def norm_on_card(original: Any) -> Any:
    """`rms_norm` with the card's kernel, for types that it takes; else torch's `original`."""

    def norm(x: Any, shape: Any, weight: Any = None, eps: Any = None) -> Any:
        mixed = torch.is_autocast_enabled("cuda")  # autocast has it in fp32
        if x.device.type != "cuda" or mixed or weight is None or x.dtype != weight.dtype:
            return original(x, shape, weight, eps)
        return _FusedNorm.apply(x, weight, tuple(shape))

    return norm
