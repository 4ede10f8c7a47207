"""The random bits of dropout and of noise: a hash of what they belong to, in torch's operations.

Each element's bits are a hash of (optimizer step, index of the sequence in the optimizer batch,
layer, token, feature): a counter-based generator in the manner of Salmon et al., 2011, "Parallel
random numbers: as easy as 1, 2, 3". They are 64-bit integers that wrap around; `>>` copies the
sign. `dropout_kernel` computes the same bits on CUDA in one launch.

Shapes: B rows of a micro-batch, T tokens, D features, N = B·T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Odd 64-bit constants, as signed numbers: those of SplitMix64 and of MurmurHash3's finalizer.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST = 0xFF51AFD7ED558CCD - (1 << 64)
SECOND = 0xC4CEB9FE1A85EC53 - (1 << 64)
BITS = 24
_LOWEST = -(1 << 63)

BLOCK = 65_536
"""Elements of a block for each thread of a CPU: two buffers of integers, 1 MB, stay in a
core's cache, and torch gives a thread no fewer than 32,768."""


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


class Mask(NamedTuple):
    """What decides a tensor's mask, its shape apart."""

    rows: Tensor
    """`DropoutKey.rows`."""
    tokens_BT: Tensor | None
    """`DropoutKey.tokens`."""
    seed: int
    """Of the step and the layer: a signed 64-bit number."""
    threshold: int
    """Bits below it are a zero; 0..2^24."""
    kept: float
    """1 - p."""


def mask_of(key: DropoutKey, index: int, p: float) -> Mask:
    """The mask of a layer's dropout with probability p."""
    return Mask(key.rows, key.tokens, _seed(key, index), round(p * 2**BITS), 1 - p)


def uniform_bits(key: DropoutKey, index: int, shape: torch.Size) -> Tensor:
    """Integers, uniform in 0..2^24 - 1, of shape (B, T, D)."""
    return _bits(*_hashes(key.rows, key.tokens, _seed(key, index), shape))


def drop(x_BTD: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """`x * keep / (1 - p)`, and `keep` as bools; (B, T, D)."""
    token_BT, feature_D = _hashes(mask.rows, mask.tokens_BT, mask.seed, x_BTD.shape)
    if x_BTD.device.type == "cpu" and x_BTD.is_contiguous():
        return _drop_in_blocks(x_BTD, token_BT, feature_D, mask)
    keep_BTD = _bits(token_BT, feature_D) >= mask.threshold
    return (x_BTD * keep_BTD).div_(mask.kept), keep_BTD


def _drop_in_blocks(
    x_BTD: Tensor, token_BT: Tensor, feature_D: Tensor, mask: Mask
) -> tuple[Tensor, Tensor]:
    """`drop` on a CPU: what lies between x and its result stays in the cache."""
    x_ND, token_N1 = x_BTD.flatten(0, 1), token_BT.reshape(-1, 1)
    size = max(1, BLOCK * torch.get_num_threads() // len(feature_D))
    out_ND, keep_ND = torch.empty_like(x_ND), torch.empty_like(x_ND, dtype=torch.bool)
    bits_ND = torch.empty(min(size, len(x_ND)), len(feature_D), dtype=torch.int64)
    shifted_ND, kept_ND = torch.empty_like(bits_ND), torch.empty_like(bits_ND, dtype=x_BTD.dtype)
    for start in range(0, len(x_ND), size):
        rows = slice(start, min(start + size, len(x_ND)))
        buffers = (bits_ND, shifted_ND, kept_ND)
        bits, shifted, kept = (buffer[: rows.stop - start] for buffer in buffers)
        torch.bitwise_xor(token_N1[rows], feature_D, out=bits)
        bits *= FIRST
        torch.bitwise_right_shift(bits, 32, out=shifted)
        bits ^= shifted
        bits ^= _LOWEST  # signed numbers are compared below, in the order of unsigned ones
        bits *= SECOND
        torch.ge(bits, (mask.threshold << (64 - BITS)) + _LOWEST, out=keep_ND[rows])
        kept.copy_(keep_ND[rows].view(torch.uint8))  # seven times as fast as from bool
        torch.mul(x_ND[rows], kept, out=out_ND[rows]).div_(mask.kept)
    return out_ND.view_as(x_BTD), keep_ND.view_as(x_BTD)


def _bits(token_BT: Tensor, feature_D: Tensor) -> Tensor:
    bits_BTD = (token_BT[:, :, None] ^ feature_D) * FIRST
    bits_BTD ^= bits_BTD >> 32
    bits_BTD *= SECOND
    return (bits_BTD >> (64 - BITS)) & (2**BITS - 1)


def _seed(key: DropoutKey, index: int) -> int:
    value = (key.key + index * GOLDEN) & ((1 << 64) - 1)
    return value - (1 << 64) if value >> 63 else value


def _hashes(
    rows: Tensor, tokens_BT: Tensor | None, seed: int, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """The hashes of the tokens, (B, T), and of the features, (D,)."""
    count, num_tokens, features = shape
    device, rows_BT = rows.device, rows
    if tokens_BT is None:
        assert rows.shape == (count,)
        rows_BT, tokens_BT = rows[:, None], torch.arange(num_tokens, device=device)[None]
    token_BT = _mixed(_mixed(rows_BT + seed) + tokens_BT * GOLDEN)
    assert token_BT.shape == (count, num_tokens)
    return token_BT, _mixed(torch.arange(1, features + 1, device=device) * GOLDEN)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ (x >> 33)) * FIRST
    x = (x ^ (x >> 33)) * SECOND
    return x ^ (x >> 33)
