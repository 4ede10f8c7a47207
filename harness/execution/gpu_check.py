"""Whether torch computes on the GPUs that were chosen, and what is free there: asked before work.

The parent imports no torch: a process per device looks (`gpu_probe`), all at the same time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cell.free_memory import least_bytes, who_uses
from harness.errors import UsageError
from harness.execution.devices import gpu_of
from harness.execution.scheduling import devices_needed
from harness.execution.visible import VisibleGpu, child_environment
from harness.grid.status import CellState
from harness.records.nvidia_smi import driver_cuda
from harness.records.torch_build import torch_build

SECONDS = 180.0
"""How long torch may take to start: a first import from a network's disk is slow."""
BUSY_BYTES = 1.0e9
"""Of a GPU's memory: what others use above it is told."""


def check_gpus(devices: Sequence[str], states: Sequence[CellState] = ()) -> None:
    """Refuses GPUs that cells could not be run on; says nothing of CPUs.

    Args:
        devices: as `resolve_devices` gives them.
        states: the cells that are to run there.

    Raises:
        UsageError: torch is built without CUDA or for a newer one, a GPU is too old, is a slice
            where several are needed, or is filled by another process; one line with what to do.
    """
    if not devices or devices[0] == "cpu":
        return
    gpus = {device: gpu_of(device) for device in devices}
    fault = build_fault(tuple(gpus.values())) or _slices_fault(gpus, states)
    if fault is not None:
        raise UsageError(fault)
    for device, found in probe(gpus).items():
        fault = probe_fault(found, device) or _memory_fault(found, device, gpus[device], states)
        if fault is not None:
            raise UsageError(fault)


def build_fault(gpus: Sequence[VisibleGpu]) -> str | None:
    """Why the installed torch computes on none of these GPUs; found without importing it."""
    build = torch_build()
    if build is None or build.hip is not None:
        return None
    names = ", ".join(dict.fromkeys(gpu.title for gpu in gpus if gpu.title)) or "a CUDA device"
    if build.cuda is None:
        return (
            f"torch {build.version} is built without CUDA, and this machine has {names}; install "
            "the CUDA build of that version (pytorch.org says how), or give --device cpu"
        )
    newest = driver_cuda()
    # Within a major version an older driver runs what is built for a newer CUDA.
    if newest is not None and _major(newest) < _major(build.cuda):
        return (
            f"the driver of {names} takes CUDA up to {newest}, and torch {build.version} is built "
            f"for {build.cuda}; update the driver, or install that torch for CUDA {_major(newest)}"
        )
    return None


def _major(version: str) -> int:
    return int(version.split(".")[0])


def probe(gpus: Mapping[str, VisibleGpu | None]) -> dict[str, dict[str, Any]]:
    """What `gpu_probe` finds on each device (None: on the CPU alone); the record of one that does
    not answer is a `fault`."""
    command = [sys.executable, "-m", "harness.execution.gpu_probe"]
    started = {
        device: subprocess.Popen(
            command,
            env=os.environ | child_environment(gpu),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for device, gpu in gpus.items()
    }
    return {device: _answer(process) for device, process in started.items()}


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        said, complained = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"fault": f"torch does not start within {SECONDS:.0f} s"}
    try:
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        last = (complained.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return {"fault": f"torch does not start: {last[:200]}"}
    return found


def probe_fault(found: Mapping[str, Any], device: str) -> str | None:
    """Why a device that was looked at computes nothing; None where it does."""
    name = f"{device} ({found['name']})" if "name" in found else device
    if "capability" in found and not has_kernels(found["kernels"], found["capability"]):
        major, minor = found["capability"]
        built = ", ".join(found["kernels"])
        return (
            f"{name} has compute capability {major}.{minor}, and torch {found['torch']} has "
            f"kernels for {built} alone; take a torch that is built for it (pytorch.org), or leave "
            "it out with --device"
        )
    if "fault" not in found:
        return None
    if "driver on your system is too old" in found["fault"]:
        newest = driver_cuda()
        takes = f" (it takes CUDA up to {newest})" if newest else ""
        return (
            f"{name}: the driver is too old for torch {found['torch']}, which is built for CUDA "
            f"{found['cuda']}{takes}; update the driver, or install a torch for its CUDA"
        )
    return f"{name}: torch does not compute there ({found['fault']}); `zbench doctor` looks closer"


def has_kernels(kernels: Sequence[str], capability: Sequence[int]) -> bool:
    """Whether a build of torch runs on a compute capability.

    Kernels of `sm_80` run on 8.0 and later ones of the same major version, those of `sm_90a` on 9.0
    alone; `compute_80` is compiled anew on any later GPU. A build that names none is not judged.
    """
    own = tuple(capability)
    for kernel in kernels:
        kind, _, number = kernel.partition("_")
        digits = number.rstrip("af")
        built = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and built <= own:
            return True
        if built[0] == own[0] and (built == own or (built < own and not number.endswith("a"))):
            return True
    return not kernels


def _slices_fault(gpus: Mapping[str, VisibleGpu], states: Sequence[CellState]) -> str | None:
    sliced = [gpu for gpu in gpus.values() if gpu.is_slice]
    wide = [state for state in states if devices_needed(state) > 1]
    if not sliced or not wide:
        return None
    return (
        f"{wide[0].cell.label}: gpus_per_cell is {devices_needed(wide[0])}, and NCCL joins no MIG "
        f"slices ({sliced[0].title}); lower it, or take whole GPUs"
    )


def _memory_fault(
    found: Mapping[str, Any], device: str, gpu: VisibleGpu, states: Sequence[CellState]
) -> str | None:
    """Says of a GPU that others fill what is free, what a cell needs, and whose the rest is."""
    free, total = found["free"], found["total"]
    if total - free <= BUSY_BYTES:
        return None
    needs = [(least_bytes(state.cell, trained=state.trained), state.cell) for state in states]
    # What does not fit an empty GPU either, the cell itself tells.
    filled = [(needed, cell) for needed, cell in needs if free < needed <= total]
    if not filled:
        return None
    needed, cell = max(filled, key=lambda pair: pair[0])
    return (
        f"{device} ({found['name']}): {free / 1e9:.1f} of {total / 1e9:.1f} GB are free, and "
        f"{cell.label} needs at least {needed / 1e9:.1f}; {who_uses(gpu.gpu_uuid)} the rest: wait, "
        "end it, or leave the GPU out with --device"
    )
