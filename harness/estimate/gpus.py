"""The accelerators that a plan knows: the makers' figures in `gpus.yaml`; and which one is here."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import Field

from harness.errors import UsageError, did_you_mean, shortened
from harness.execution.devices import gpu_of
from harness.records.environment import processor
from harness.spec import Spec

Rate = Annotated[float, Field(gt=0)]


class Gpu(Spec):
    """One accelerator, by its maker's data sheet."""

    title: str
    aliases: tuple[str, ...]
    """What the driver calls it."""
    memory_gb: Rate
    """Thousands of millions of bytes."""
    peak_bf16_flops: Rate | None
    """Operations per second of dense matrix products; None where it has no such units."""
    peak_fp16_flops: Rate | None
    peak_fp32_flops: Rate
    sustained_share: Annotated[float, Field(gt=0, le=1)]
    """Share of the peak that the products of a training reach, all else apart: an assumption."""
    bandwidth: Rate
    """Memory bandwidth, bytes per second."""
    price_per_hour: Rate | None
    source: str
    """Address of the data sheet."""

    @property
    def memory_bytes(self) -> float:
        """Bytes of its memory."""
        return self.memory_gb * 1e9

    def precision(self, setting: str) -> str:
        """The precision of the frozen base, as `resolve_precision` does on a machine."""
        if setting == "auto":
            return "fp16" if self.peak_bf16_flops is None else "bf16"
        return setting

    def peak_flops(self, precision: str) -> float | None:
        """Operations per second in a precision; None where the GPU does not compute in it."""
        peaks = {"bf16": self.peak_bf16_flops, "fp16": self.peak_fp16_flops}
        return peaks.get(precision, self.peak_fp32_flops)


@cache
def known_gpus() -> dict[str, Gpu]:
    """All GPUs by name."""
    import yaml

    text = (resources.files("harness") / "estimate/gpus.yaml").read_text(encoding="utf-8")
    return {name: Gpu.model_validate(raw) for name, raw in yaml.safe_load(text).items()}


def find_gpu(name: str) -> Gpu:
    """The GPU of a name.

    Raises:
        UsageError: there is none, or several; the nearest names are told.
    """
    gpus = known_gpus()
    named = [known for known in gpus if known.startswith(f"{name.lower()}-")]
    if name.lower() not in gpus and len(named) == 1:  # h100, of which one size is known
        return gpus[named[0]]
    if name.lower() not in gpus and named:
        raise UsageError(f"--hardware {name}: has several sizes; give {' or '.join(named)}")
    if name.lower() not in gpus:
        raise UsageError(
            f"--hardware {shortened(name)}: no such GPU{did_you_mean(name.lower(), gpus)}"
        )
    return gpus[name.lower()]


def gpu_of_device(device_name: str) -> tuple[str, Gpu] | None:
    """The name and figures of a GPU as its driver calls it; None where it is new."""
    gpus = known_gpus().items()
    return next(((name, gpu) for name, gpu in gpus if device_name in gpu.aliases), None)


def device_name(device: str) -> str | None:
    """The name of the processor, GPU or slice, without torch; None where nothing tells.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES names what is not there.
    """
    if device == "cpu":
        return processor()
    return gpu_of(device if ":" in device else f"{device}:0").title
