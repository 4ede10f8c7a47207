"""Where a grid runs: its devices and CPU threads, found without importing torch."""

from __future__ import annotations

import os

from harness.errors import UsageError, shortened
from harness.execution.visible import VARIABLE, VisibleGpu, child_environment, visible_gpus
from harness.records.nvidia_smi import list_gpus

REFUSED = {
    "mps": "zbench does not compute on Apple's GPUs (it was never run on one, and torch has no "
    "fp64 there)",
    "xpu": "zbench does not compute on Intel's GPUs (it was never run on one)",
}
"""Devices that torch knows and zbench does not compute on, and why."""


def resolve_devices(setting: str, *, workers: int | None, num_cells: int) -> tuple[str, ...]:
    """One device per worker process.

    Args:
        setting: `auto`, `cpu`, `cuda` (all of them), or a list such as `cuda:0,cuda:1`.
        workers: on the CPU; None for one per core.
        num_cells: an upper bound of the workers.

    Raises:
        UsageError: the setting names no device, or one that this machine lacks. Whether torch
            computes on it, `harness.execution.gpu_check` says.
    """
    cpus = ("cpu",) * min(workers or available_cores(), max(num_cells, 1))
    if setting == "cpu":
        return cpus
    place = f"--device {shortened(setting)}"
    names = [name.strip() for name in setting.split(",")]
    for name in names:
        kind, _, index = name.partition(":")
        if kind in REFUSED:
            raise UsageError(
                f"{place}: {REFUSED[kind]}; give cpu, or take a machine with a CUDA GPU"
            )
        if setting not in ("auto", "cuda") and (kind != "cuda" or not index.isdigit()):
            raise UsageError(
                f"{place}: '{shortened(name)}' is no device; use auto, cpu, cuda or cuda:0,cuda:1"
            )
    found = visible_gpus()
    if setting == "auto" and not found:
        return cpus
    if not found:
        raise UsageError(f"{place}: this machine shows no CUDA device ({_why_none()})")
    known = [f"cuda:{index}" for index in range(len(found))]
    wanted = known if setting in ("auto", "cuda") else names
    strange = next((name for name in wanted if name not in known), None)
    if strange is not None:
        there = f"{shortened(strange)} is not there; this machine has {len(known)}"
        raise UsageError(f"{place}: {there}")
    return tuple(wanted[: max(num_cells, 1)])


def worker_threads(devices: tuple[str, ...], workers: int | None) -> int:
    """CPU threads of each worker.

    On the CPU they depend on the machine and `--workers` alone, never on how many cells are left:
    another number of threads adds in another order, and a run that resumes after a kill gives the
    same numbers to the last bit. OMP_NUM_THREADS is an upper bound.
    """
    on_cpu = not devices or devices[0] == "cpu"
    processes = (workers or available_cores()) if on_cpu else len(devices)
    share = max(1, available_cores() // processes)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdigit() and int(limit) else share


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def environment_of(device: str) -> dict[str, str]:
    """Variables of a process that computes on `cpu` or `cuda:0`, ..., and sees no other device.

    Libraries read them when they are imported.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES names what is not there.
    """
    return child_environment(None if device == "cpu" else gpu_of(device))


def take_device(device: str) -> str:
    """Makes this process one that sees a device alone; returns torch's name of it, `cpu` or `cuda`.

    It must be called before torch is imported, which reads the environment then.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES names what is not there.
    """
    if device == "cpu":
        return device
    os.environ |= environment_of(device)
    return "cuda"


def gpu_of(device: str) -> VisibleGpu:
    """The GPU, or slice, that `cuda:0`, ... means here.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES names what is not there.
    """
    return visible_gpus()[int(device.removeprefix("cuda:"))]


def device_notes(devices: tuple[str, ...], setting: str) -> tuple[str, ...]:
    """What a user should know of cells that run on the CPU because nothing else was found."""
    if setting != "auto" or devices[:1] != ("cpu",):
        return ()
    listed = list_gpus()
    if listed and os.environ.get(VARIABLE) is not None:
        names = ", ".join(dict.fromkeys(gpu.name for gpu in listed))
        return (f"{VARIABLE} hides this machine's GPUs ({names}): cells run on the CPU",)
    return ()


def _why_none() -> str:
    setting = os.environ.get(VARIABLE)
    if setting is not None:
        return f"{VARIABLE}={shortened(setting)} hides every GPU; unset it, or give --device cpu"
    return "`nvidia-smi -L` lists none; give --device cpu"
