"""Dropout of one tensor in one launch on CUDA: it reads x, hashes, and writes x * keep / (1 - p).

The same bits as `dropout_bits` gives, and nothing of a mask in memory: the backward pass hashes
again. The kernel is Triton's (`dropout_triton`), which torch's builds for CUDA bring. Where it is
not there, or the machine has no C compiler for its launcher, `dropout_bits` serves CUDA too.

Shapes: B rows of a micro-batch, T tokens, D features.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor

from harness.methods.dropout_bits import Mask, drop
from harness.models.devices import is_out_of_memory

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK_TOKENS, BLOCK_FEATURES = 8, 256
"""Of one program: the hash of a feature serves as many tokens."""

logger = logging.getLogger(__name__)
_faults: list[str] = []
"""Why the kernel did not run in this process, once it has failed."""


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed. The rehearsal of a card on a CPU answers yes."""
    return importlib.util.find_spec("triton") is not None


def fits(x: Tensor) -> bool:
    """Whether the kernel takes a tensor: on CUDA, contiguous, fp32, bf16 or fp16."""
    return x.is_cuda and x.dtype in DTYPES and x.is_contiguous() and not _faults and has_triton()


def run(
    x_BTD: Tensor, rows: Tensor, tokens_BT: Tensor | None, seed: int, threshold: int, kept: float
) -> Tensor:
    """`x * keep / kept` of a contiguous tensor; the others are the fields of `Mask`."""
    mask = Mask(rows, tokens_BT, seed, threshold, kept)
    if not _faults:
        try:
            return launch(x_BTD, mask)
        except Exception as fault:  # Triton raises what its parts raise
            if is_out_of_memory(fault):
                raise
            _faults.append(f"{type(fault).__name__}: {fault}")
            logger.warning("dropout runs without its kernel, more slowly: %s", _faults[0])
    return drop(x_BTD, mask)[0]


row_dropout = torch.library.custom_op(
    "zbench::row_dropout", run, mutates_args=(), device_types="cuda"
)


@row_dropout.register_fake
def _(x_BTD: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x_BTD)


def launch(x_BTD: Tensor, mask: Mask) -> Tensor:
    """Runs the kernel; on a CPU under Triton's interpreter."""
    from harness.methods.dropout_triton import kernel

    count, length, features = x_BTD.shape
    out_BTD = torch.empty_like(x_BTD)
    grid = (-(-count * length // BLOCK_TOKENS), -(-features // BLOCK_FEATURES))
    kernel[grid](
        x_BTD,
        out_BTD,
        mask.rows.contiguous(),
        None if mask.tokens_BT is None else mask.tokens_BT.contiguous(),
        count * length,
        length,
        features,
        mask.seed,
        mask.threshold,
        mask.kept,
        BLOCK_TOKENS,
        BLOCK_FEATURES,
    )
    return out_BTD
