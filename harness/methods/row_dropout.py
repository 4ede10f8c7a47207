"""Dropout whose draws belong to a sequence, not to the batch that it happens to be computed in.

PyTorch's dropout draws for a whole tensor at once, so that another split into micro-batches draws
otherwise and trains otherwise. Here each element's draw is a hash of (optimizer step, the
sequence's place in the optimizer batch, layer, token, feature): a counter-based generator in the
manner of Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

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
    """What a forward pass draws for: one optimizer step and some of its sequences."""

    key: int
    """Of the step, 63 bits."""
    rows: Tensor
    """The sequences' places in the optimizer batch: (B,), or token by token (B, T)."""
    tokens: Tensor | None = None
    """(B, T), the tokens' positions in their sequences; None where each row holds one sequence from
    its beginning."""


_KEY: ContextVar[DropoutKey | None] = ContextVar("draws", default=None)


@contextlib.contextmanager
def dropout_rng(draws: DropoutKey) -> Iterator[None]:
    """Makes every RowDropout inside draw for these sequences."""
    token = _KEY.set(draws)
    try:
        yield
    finally:
        _KEY.reset(token)


class RowDropout(nn.Module):
    """Dropout that gives a sequence the same draws in any micro-batch.

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
        """Returns the input with elements zeroed and the others divided by 1 - p, in training."""
        if not self.training or self.p == 0:
            return x_BTD
        draws = _KEY.get()
        if draws is None:
            return functional.dropout(x_BTD, self.p, training=True)
        keep = uniform_bits(draws, self.index, x_BTD.shape) >= round(self.p * 2**_BITS)
        return x_BTD * keep.to(x_BTD.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        """Returns what a model's printout shows."""
        return f"p={self.p}"


def uniform_bits(draws: DropoutKey, index: int, shape: torch.Size) -> Tensor:
    """Returns whole numbers, uniform in 0..2^24 - 1, of shape (B, T, D)."""
    rows, num_tokens, features = shape
    device = draws.rows.device
    places_BT, tokens_BT = draws.rows, draws.tokens
    if tokens_BT is None:
        assert places_BT.shape == (rows,)
        places_BT, tokens_BT = places_BT[:, None], torch.arange(num_tokens, device=device)[None]
    row_BT = _mixed(places_BT + _signed(draws.key + index * _GOLDEN))
    token_BT = _mixed(row_BT + tokens_BT * _GOLDEN)
    assert token_BT.shape == (rows, num_tokens)
    feature_D = _mixed(torch.arange(1, features + 1, device=device) * _GOLDEN)
    bits_BTD = (token_BT[:, :, None] ^ feature_D) * _FIRST
    bits_BTD ^= bits_BTD >> 32
    bits_BTD *= _SECOND
    return (bits_BTD >> (64 - _BITS)) & (2**_BITS - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ (x >> 33)) * _FIRST
    x = (x ^ (x >> 33)) * _SECOND
    return x ^ (x >> 33)


def _signed(value: int) -> int:
    """Returns a number modulo 2^64 as the signed number of the same bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def replace_dropouts(model: nn.Module) -> None:
    """Puts a RowDropout in the place of every active dropout of the model, in place."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and module.p > 0
    ]
    for index, name in enumerate(names):
        parent, _, leaf = name.rpartition(".")
        old = model.get_submodule(name)
        assert isinstance(old, nn.Dropout)
        new = RowDropout(old.p, index).train(old.training)
        holder = model.get_submodule(parent)
        if isinstance(holder, nn.ModuleDict):
            holder[leaf] = new
        else:
            setattr(holder, leaf, new)
