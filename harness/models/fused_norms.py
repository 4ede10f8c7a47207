"""RMSNorm as one kernel forward and one backward, in half precision on CUDA.

transformers computes it by six operations and keeps three fp32 tensors of the hidden states' size
for the backward pass. torch's own kernel keeps the input and one number per token. It rounds once
where transformers rounds twice, so that low bits differ.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.models.kernel_check import KernelCheck

FUSED = "the fused norm"
"""Its name where it is compared with transformers' norms."""
NORMS = frozenset(
    f"{family}RMSNorm" for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Olmo2")
)
"""transformers' classes with the formula of `usual_rms_norm`; Gemma's weight is another."""


def fused_rms_norm(x: Tensor, weight: Tensor, *, epsilon: float) -> Tensor:
    """x / sqrt(mean(x²) + epsilon) · weight over the last dimension, in the type of both."""
    # Under autocast torch would return fp32.
    with torch.autocast(x.device.type, enabled=False):
        return functional.rms_norm(x, x.shape[-1:], weight, epsilon)


def usual_rms_norm(x: Tensor, weight: Tensor, *, epsilon: float) -> Tensor:
    """The same by transformers' operations."""
    exact = x.to(torch.float32)
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * exact.to(x.dtype)


def may_fuse(device: torch.device, dtype: torch.dtype | None) -> bool:
    """Whether a training takes fused norms.

    Args:
        dtype: of autocast; None in fp32.
    """
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


class FusedNorms:
    """The RMSNorms of a model, which run fused between `install` and `remove`."""

    def __init__(self, model: nn.Module) -> None:
        self.norms: list[Any] = [one for one in model.modules() if type(one).__name__ in NORMS]
        self.check: KernelCheck | None = None
        """Compares each norm with transformers' in the passes from now on."""

    def install(self) -> None:
        """Lets the norms run fused; the model's state stays as it is."""
        for norm in self.norms:
            if "forward" not in vars(norm):  # accelerate's, where it has put a hook there
                norm.forward = functools.partial(self._forward, norm)

    def remove(self) -> None:
        """Lets them run as transformers has them."""
        for norm in self.norms:
            own = vars(norm).get("forward")
            if isinstance(own, functools.partial) and own.func == self._forward:
                del norm.forward

    def _forward(self, norm: Any, x: Tensor) -> Tensor:
        if x.dtype != norm.weight.dtype:  # the usual ones then return another type
            usual: Tensor = type(norm).forward(norm, x)
            return usual
        fused = functools.partial(fused_rms_norm, epsilon=norm.variance_epsilon)
        if self.check is not None:
            usual_norm = functools.partial(usual_rms_norm, epsilon=norm.variance_epsilon)
            self.check.compare(FUSED, fused, usual_norm, (x, norm.weight))
            if FUSED in self.check.failed:
                return usual_norm(x, norm.weight)
        return fused(x, norm.weight)
