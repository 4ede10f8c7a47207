"""The table of GPUs."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.estimate.gpus import find_gpu, gpu_of_device, known_gpus


def test_every_gpu_has_an_address_and_no_price() -> None:
    assert len(known_gpus()) >= 9
    for name, gpu in known_gpus().items():
        assert gpu.source.startswith("https://"), name
        assert gpu.price_per_hour is None, name


def test_an_unknown_gpu_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'h200'") as fault:
        find_gpu("h20")
    assert "\n" not in str(fault.value)


def test_names_of_drivers_are_found() -> None:
    found = gpu_of_device("NVIDIA H200")
    assert found is not None
    assert found[0] == "h200"
    assert gpu_of_device("NVIDIA H20") is None


def test_gpus_of_one_name_and_two_sizes_are_told_apart() -> None:
    assert find_gpu("V100-16").memory_gb == 16
    for name in ("a100", "v100"):
        with pytest.raises(UsageError, match=f"{name}: has several sizes; give {name}-"):
            find_gpu(name)


def test_old_gpus_run_in_fp16() -> None:
    gpu = find_gpu("V100-32")
    assert gpu.precision("auto") == "fp16"
    assert gpu.peak_flops("fp32") == 15.7e12
    assert gpu.peak_flops("fp16") == 125e12
    assert gpu.peak_flops("bf16") is None
    assert find_gpu("a100-80").precision("auto") == "bf16"
