"""What a device computes in, and errors that say that its memory is full."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch

from harness.errors import ModelError
from harness.models import devices
from harness.models.devices import is_out_of_memory, resolve_precision


def test_a_real_allocation_that_fails_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    for text in (
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "MPS backend out of memory (MPS allocated: 9.05 GB)",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY",
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory",
        "unable to mmap 8 bytes: Cannot allocate memory (12)",
        "std::bad_alloc",
    ):
        assert is_out_of_memory(RuntimeError(text)), text
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_nothing_else_says_what_a_full_memory_is() -> None:
    """accelerate's own rule knows no CUBLAS_STATUS_ALLOC_FAILED: nothing would be halved."""
    package = Path(devices.__file__).parents[1]
    words = re.compile(
        r"find_executable_batch_size|torch[.\w]*OutOfMemoryError|out of memory\W+in "
    )
    others = [path for path in package.rglob("*.py") if words.search(path.read_text("utf-8"))]
    assert others == []


@pytest.mark.parametrize("setting", ["auto", "fp32"])
def test_a_cpu_computes_in_fp32_unless_told(setting: str) -> None:
    assert resolve_precision(setting, "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("fp32", "cuda:0") == "fp32"


@pytest.mark.parametrize(("able", "found"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_bf16_where_it_can(
    able: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    assert resolve_precision("auto", "cuda") == found
    assert resolve_precision("fp16", "cuda") == "fp16"
    if able:
        assert resolve_precision("bf16", "cuda") == "bf16"
        return
    with pytest.raises(ModelError) as caught:
        resolve_precision("bf16", "cuda")
    assert str(caught.value) == (
        "train.precision: Tesla V100 does not compute in bf16; take fp16 or fp32"
    )
