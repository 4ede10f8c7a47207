"""What a device computes in, and how it says that its memory is full."""

from __future__ import annotations

import errno
from typing import Literal, cast

from harness.errors import ModelError

_OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "memoryallocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "allocation_failed",
)
"""In the messages of torch's allocators and of CUDA's libraries, on GPUs and on the CPU, in small
letters. Not CUDNN_STATUS_NOT_SUPPORTED, which smaller batches do not cure."""

Precision = Literal["bf16", "fp16", "fp32"]
DTYPES: dict[Precision, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""torch's names of the precisions."""


def free_memory(device: str) -> None:
    """Collects garbage, and empties torch's cache of a CUDA device."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that memory is full; torch is not imported for it."""
    if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":
        return True
    if isinstance(fault, OSError):
        return fault.errno == errno.ENOMEM
    text = str(fault).lower()
    return isinstance(fault, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def resolve_precision(setting: str, device: str) -> Precision:
    """The precision of the frozen base; `auto` is bf16 on a GPU that computes in it, fp16 on one
    that does not, and fp32 on the CPU.

    Raises:
        ModelError: the device does not compute in the one that is asked for.
    """
    if setting not in ("auto", "bf16"):
        return cast("Precision", setting)
    if not device.startswith("cuda"):
        return "bf16" if setting == "bf16" else "fp32"
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    if setting == "bf16":
        raise ModelError(
            f"train.precision: {torch.cuda.get_device_name(device)} does not compute in bf16; "
            "take fp16 or fp32"
        )
    return "fp16"
