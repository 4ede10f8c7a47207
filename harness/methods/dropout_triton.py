"""The kernel of `dropout_kernel`, in Triton; only that module imports it, where Triton is there.

Integers wrap around and `>>` of a signed number copies its sign, as in torch; `div_rn` rounds as a
CPU does. (Torch on CUDA multiplies by the rounded 1 / (1 - p) instead: the last bit of what is kept
may differ from it.)

Shapes: N tokens, D features.
"""

from __future__ import annotations

import triton
from triton import language as tl

from harness.methods import dropout_bits

_GOLDEN = tl.constexpr(dropout_bits.GOLDEN)
_FIRST = tl.constexpr(dropout_bits.FIRST)
_SECOND = tl.constexpr(dropout_bits.SECOND)
_LOW = tl.constexpr(64 - dropout_bits.BITS)
_MASK = tl.constexpr(2**dropout_bits.BITS - 1)


@triton.jit
def mixed(x):  # type: ignore[no-untyped-def]
    """`dropout_bits`' mixing of 64-bit integers."""
    x = (x ^ (x >> 33)) * _FIRST
    x = (x ^ (x >> 33)) * _SECOND
    return x ^ (x >> 33)


@triton.jit(do_not_specialize=["seed", "threshold", "num_tokens", "length"])
def kernel(  # type: ignore[no-untyped-def]
    x_ND,
    out_ND,
    rows,
    tokens_N,
    num_tokens,
    length,
    features,
    seed,
    threshold,
    kept,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Drops a block of SIZE tokens by WIDTH features; `rows` is (N,) where `tokens_N` is given,
    otherwise one index for each `length` tokens."""
    n = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    d = tl.program_id(1).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    if tokens_N is None:
        row_N = tl.load(rows + n // length, mask=n < num_tokens, other=0)
        token_N = n % length
    else:
        row_N = tl.load(rows + n, mask=n < num_tokens, other=0)
        token_N = tl.load(tokens_N + n, mask=n < num_tokens, other=0)
    hash_N = mixed(mixed(row_N + seed) + token_N * _GOLDEN)
    bits_ND = (hash_N[:, None] ^ mixed((d + 1) * _GOLDEN)[None, :]) * _FIRST
    bits_ND = (bits_ND ^ (bits_ND >> 32)) * _SECOND
    keep_ND = ((bits_ND >> _LOW) & _MASK) >= threshold
    at_ND = n[:, None] * features + d[None, :]
    inside_ND = (n < num_tokens)[:, None] & (d < features)[None, :]
    value_ND = tl.load(x_ND + at_ND, mask=inside_ND, other=0.0).to(tl.float32)
    value_ND = tl.div_rn(tl.where(keep_ND, value_ND, value_ND * 0.0), kept)
    tl.store(out_ND + at_ND, value_ND.to(out_ND.dtype.element_ty), mask=inside_ND)
