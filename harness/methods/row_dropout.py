"""Dropout whose mask belongs to a sequence, not to the micro-batch that it is computed in.

PyTorch's dropout draws for a whole tensor at once, so that another split into micro-batches has
another mask and trains otherwise. Here an element's random bits are its sequence's own, by
`dropout_bits`, the same on every device; on CUDA one kernel draws and applies them.

Shapes: B rows of a micro-batch, T tokens, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from harness.methods import dropout_kernel
from harness.methods.dropout_bits import BITS, DropoutKey, Mask, drop, mask_of, uniform_bits

_KEY: ContextVar[DropoutKey | None] = ContextVar("dropout_key", default=None)


@contextlib.contextmanager
def dropout_rng(key: DropoutKey | None) -> Iterator[None]:
    """Makes the masks of every RowDropout inside those of these sequences; None: torch's own."""
    token = _KEY.set(key)
    try:
        yield
    finally:
        _KEY.reset(token)


def current_dropout() -> DropoutKey | None:
    """The key of `dropout_rng`; None outside of it."""
    return _KEY.get()


class RowDropout(nn.Module):
    """Dropout that gives a sequence the same mask in any micro-batch.

    Outside `dropout_rng` it is PyTorch's own dropout.

    Args:
        p: probability of a zero.
        index: tells the dropouts of a model apart.
    """

    def __init__(self, p: float, index: int) -> None:
        super().__init__()
        self.p = p
        self.index = index

    def forward(self, x_BTD: Tensor) -> Tensor:
        """In training, zeroes elements and divides the others by 1 - p."""
        if not self.training or self.p == 0:
            return x_BTD
        key = _KEY.get()
        if key is None:
            return functional.dropout(x_BTD, self.p, training=True)
        dropped: Tensor = _Drop.apply(x_BTD, mask_of(key, self.index, self.p))
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Drop(torch.autograd.Function):
    """`x * keep / (1 - p)`; a bool of each element is kept for the backward pass, or nothing."""

    @staticmethod
    def forward(context: Any, x_BTD: Tensor, mask: Mask) -> Tensor:
        context.mask, context.recomputes = mask, False
        if dropout_kernel.fits(x_BTD):
            dropped_BTD = dropout_kernel.row_dropout(x_BTD, *mask)
            # Not so where it has failed just now: a layer that is computed again in the backward
            # pass must then keep as much as it did before.
            if dropout_kernel.fits(x_BTD):
                context.recomputes = True
                return dropped_BTD
        out_BTD, keep_BTD = drop(x_BTD, mask)
        context.save_for_backward(keep_BTD)
        return out_BTD

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient_BTD: Tensor) -> tuple[Tensor, None]:
        if context.recomputes:
            return dropout_kernel.row_dropout(gradient_BTD.contiguous(), *context.mask), None
        (keep_BTD,) = context.saved_tensors
        keep_BTD = keep_BTD.view(torch.uint8).to(gradient_BTD.dtype)  # from bool it is slower
        return (gradient_BTD / context.mask.kept).mul_(keep_BTD), None


_NOISE = 1 << 20
"""From this number on, indices are those of layers that draw normal noise."""


def normal_noise(like_BTD: Tensor, index: int) -> Tensor:
    """Standard normal numbers of the sequences themselves, as masks are; outside `dropout_rng`
    those of torch's generator."""
    key = _KEY.get()
    if key is None:
        return torch.randn_like(like_BTD)
    bits = uniform_bits(key, _NOISE + index, like_BTD.shape)
    within = (2 * bits.double() + 1) / 2**BITS - 1  # -1..1, neither end
    return (2**0.5 * torch.erfinv(within)).to(like_BTD.dtype)


def replace_draws(model: nn.Module) -> None:
    """Makes what PVeRA draws in training belong to the sequences, in place."""
    layers = [module for module in model.modules() if hasattr(module, "_reparametrize")]
    for index, layer in enumerate(layers):
        own: Any = layer
        own.draws_noise, own.noise_index = True, index
        own._reparametrize = MethodType(_drawn, layer)


def _drawn(layer: Any, mu: Tensor, logvar: Tensor, _name: str) -> Tensor:
    """PVeRA's sample in training, its mean otherwise."""
    if not layer.training:
        return mu
    return mu + normal_noise(mu, layer.noise_index) * torch.exp(0.5 * logvar)


def replace_dropouts(model: nn.Module) -> None:
    """Replaces every active dropout of the model by a RowDropout, in place."""
    active = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and module.p > 0
    ]
    for index, (name, old) in enumerate(active):
        parent, _, leaf = name.rpartition(".")
        # Also in a ModuleDict, whose items are its child modules.
        model.get_submodule(parent).register_module(
            leaf, RowDropout(old.p, index).train(old.training)
        )
