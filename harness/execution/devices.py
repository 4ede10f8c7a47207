"""Where a grid runs: its devices and CPU threads, found without importing torch."""

from __future__ import annotations

import os
import subprocess

from harness.errors import UsageError, shortened


def resolve_devices(setting: str, *, workers: int | None, num_cells: int) -> tuple[str, ...]:
    """One device per worker process.

    Args:
        setting: `auto`, `cpu`, `cuda` (all of them), or a list such as `cuda:0,cuda:1`.
        workers: on the CPU; None for one per core.
        num_cells: an upper bound of the workers.

    Raises:
        UsageError: the setting names no device, or one that this machine lacks.
    """
    if setting == "auto":
        setting = "cuda" if count_cuda_devices() else "cpu"
    if setting == "cpu":
        return ("cpu",) * min(workers or available_cores(), max(num_cells, 1))
    found = count_cuda_devices()
    known = [f"cuda:{index}" for index in range(found)]
    wanted = known if setting == "cuda" else [name.strip() for name in setting.split(",")]
    place = f"--device {shortened(setting)}"
    for name in wanted:
        if not name.startswith("cuda:") or not name[5:].isdigit():
            raise UsageError(
                f"{place}: '{shortened(name)}' is no device; use auto, cpu, cuda or cuda:0,cuda:1"
            )
        if name not in known:
            there = f"{shortened(name)} is not there; this machine has {found}"
            raise UsageError(f"{place}: {there}")
    if not wanted:
        raise UsageError("--device cuda: this machine shows no CUDA device (nvidia-smi -L)")
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


def count_cuda_devices() -> int:
    """Number of CUDA devices that a child process would see."""
    visible = _visible_devices()
    if visible is not None:
        return len(visible)
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def cuda_visible(device: str) -> str:
    """The value of CUDA_VISIBLE_DEVICES that shows a worker its own device alone."""
    index = int(device.removeprefix("cuda:"))
    visible = _visible_devices()
    return str(index) if visible is None else visible[index]


def _visible_devices() -> list[str] | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
