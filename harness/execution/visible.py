"""Which GPUs, or slices of GPUs, a process that this one starts would see; torch is not imported.

CUDA reads CUDA_VISIBLE_DEVICES without a word: it ends the list at the first name that it does not
know, and hides everything where a name stands twice. Such a list is refused here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError, shortened
from harness.records.nvidia_smi import ListedGpu, list_gpus

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
ALLOCATOR, OLD_ALLOCATOR = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
"""The settings of torch's allocator: the name that torch 2.11 to 2.13 read, and the one before,
which they still take."""


@dataclass(frozen=True)
class VisibleGpu:
    """A CUDA device: a GPU, or a MIG slice of one."""

    name: str
    """The value of CUDA_VISIBLE_DEVICES that shows it alone: an index, or a UUID."""
    title: str | None = None
    """What it is, such as `NVIDIA H200`; None where nvidia-smi is not there to tell."""
    gpu_uuid: str | None = None
    """Of the GPU, for a slice too."""
    is_slice: bool = False


def visible_gpus() -> tuple[VisibleGpu, ...]:
    """The CUDA devices that a child process would see; slices one by one, in the order of
    `nvidia-smi -L`.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES names what is not there, or something twice.
    """
    listed = list_gpus()
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return tuple(device for gpu in listed for device in _devices_of(gpu))
    names = [name.strip() for name in setting.split(",") if name.strip()]
    if "-1" in names:  # CUDA's end of the list
        names = names[: names.index("-1")]
    found = [_named(name, listed, setting) for name in names]
    twice = next((d for i, d in enumerate(found) if d.name in [e.name for e in found[:i]]), None)
    if twice is not None:
        raise _refused(setting, f"names {twice.name} twice, and CUDA would show no GPU", listed)
    return tuple(found)


def child_environment(device: VisibleGpu | None) -> dict[str, str]:
    """Variables of a process that computes on a device, or on the CPU; what the user has set stays.

    With the order of the PCI bus an index means the GPU that nvidia-smi shows under it. Segments
    that can grow keep the allocator from breaking the memory up: no two steps have the same shapes.
    """
    variables = {VARIABLE: "" if device is None else device.name}
    if device is None:
        return variables
    variables[ORDER] = os.environ.get(ORDER, "PCI_BUS_ID")
    if not {ALLOCATOR, OLD_ALLOCATOR} & os.environ.keys():
        variables[ALLOCATOR] = "expandable_segments:True"
    return variables


def _devices_of(gpu: ListedGpu) -> list[VisibleGpu]:
    if not gpu.slices:
        return [VisibleGpu(str(gpu.index), gpu.name, gpu.uuid)]
    return [VisibleGpu(part.uuid, part.name, gpu.uuid, is_slice=True) for part in gpu.slices]


def _named(name: str, listed: Sequence[ListedGpu], setting: str) -> VisibleGpu:
    """The device that a name of CUDA_VISIBLE_DEVICES means; a UUID may be shortened."""
    if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
        raise _refused(setting, f"'{shortened(name)}' is neither an index nor a UUID", listed)
    if not listed:  # a container without nvidia-smi: torch will tell
        return VisibleGpu(str(int(name)) if name.isdigit() else name)
    if name.isdigit():
        found = [gpu for gpu in listed if gpu.index == int(name)]
        devices = [_devices_of(gpu)[0] for gpu in found]  # CUDA takes the first slice
    else:
        every = [device for gpu in listed for device in _devices_of(gpu)]
        devices = [d for d in every if (d.name if d.is_slice else str(d.gpu_uuid)).startswith(name)]
    if len(devices) != 1:
        many = "names no GPU" if not devices else "is the beginning of several UUIDs"
        raise _refused(setting, f"{name} {many} of this machine", listed)
    return devices[0]


def _refused(setting: str, why: str, listed: Sequence[ListedGpu]) -> UsageError:
    parts = sum(len(gpu.slices) for gpu in listed)
    slices = f" ({parts} MIG slices)" if parts else ""
    here = f"; it has GPUs {', '.join(str(gpu.index) for gpu in listed)}{slices}" if listed else ""
    return UsageError(
        f"{VARIABLE}={shortened(setting)}: {why}{here}; unset it, or name what `nvidia-smi -L` "
        "lists"
    )
