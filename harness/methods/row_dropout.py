"""Dropout whose mask belongs to a sequence, not to the micro-batch that it is computed in.

PyTorch's dropout draws for a whole tensor at once, so that another split into micro-batches has
another mask and trains otherwise. Here each element's random bits are a hash of (optimizer step,
index of the sequence in the optimizer batch, dropout layer, token, feature): a counter-based
generator in the manner of Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".

Shapes: B rows of a micro-batch, T tokens, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Odd 64-bit constants, as signed numbers: those of SplitMix64 and of MurmurHash3's finalizer.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xFF51AFD7ED558CCD - (1 << 64)
_SECOND = 0xC4CEB9FE1A85EC53 - (1 << 64)
_BITS = 24


@dataclass(frozen=True)
class DropoutKey:
    """What the masks of a forward pass depend on: one optimizer step and some of its sequences."""

    key: int
    """Seed of the step, 63 bits."""
    rows: Tensor
    """Indices of the sequences in the optimizer batch: (B,), or token by token (B, T)."""
    tokens: Tensor | None = None
    """(B, T), the tokens' positions in their sequences; None where each row holds one sequence from
    its beginning."""


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
        keep = uniform_bits(key, self.index, x_BTD.shape) >= round(self.p * 2**_BITS)
        return x_BTD * keep.to(x_BTD.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def uniform_bits(key: DropoutKey, index: int, shape: torch.Size) -> Tensor:
    """Integers, uniform in 0..2^24 - 1, of shape (B, T, D)."""
    rows, num_tokens, features = shape
    device = key.rows.device
    rows_BT, tokens_BT = key.rows, key.tokens
    if tokens_BT is None:
        assert rows_BT.shape == (rows,)
        rows_BT, tokens_BT = rows_BT[:, None], torch.arange(num_tokens, device=device)[None]
    row_BT = _mixed(rows_BT + _signed(key.key + index * _GOLDEN))
    token_BT = _mixed(row_BT + tokens_BT * _GOLDEN)
    assert token_BT.shape == (rows, num_tokens)
    feature_D = _mixed(torch.arange(1, features + 1, device=device) * _GOLDEN)
    bits_BTD = (token_BT[:, :, None] ^ feature_D) * _FIRST
    bits_BTD ^= bits_BTD >> 32
    bits_BTD *= _SECOND
    return (bits_BTD >> (64 - _BITS)) & (2**_BITS - 1)


_NOISE = 1 << 20
"""From this number on, indices are those of layers that draw normal noise."""


def normal_noise(like_BTD: Tensor, index: int) -> Tensor:
    """Standard normal numbers of the sequences themselves, as masks are; outside `dropout_rng`
    those of torch's generator."""
    key = _KEY.get()
    if key is None:
        return torch.randn_like(like_BTD)
    bits = uniform_bits(key, _NOISE + index, like_BTD.shape)
    within = (2 * bits.double() + 1) / 2**_BITS - 1  # -1..1, neither end
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


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ (x >> 33)) * _FIRST
    x = (x ^ (x >> 33)) * _SECOND
    return x ^ (x >> 33)


def _signed(value: int) -> int:
    """A number modulo 2^64, as the signed number of the same bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


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
