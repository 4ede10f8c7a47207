"""GPUs and their driver, memory of the host, and the limits of a process."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError
from harness.estimate.memory import host_bytes, scoring_bytes, sequence_pass, training_bytes
from harness.execution.devices import available_cores
from harness.execution.gpu_check import build_fault, probe, probe_fault
from harness.execution.visible import visible_gpus
from harness.grid.status import CellState
from harness.prepare.doctor.finding import Context, Finding, size
from harness.records.nvidia_smi import users_of

BUSY_BYTES = 1e9
"""Of a GPU's memory, above which somebody else computes there."""
LEAST_FILES, LEAST_PROCESSES = 4096, 1024
LEAST_SHARED_MEMORY = 1e9


def check_gpus(context: Context) -> Iterator[Finding]:
    """The GPUs by name, their memory, and what others use of it."""
    if context.on_login_node:
        return
    if not context.gpus:
        if shutil.which("nvidia-smi") is None:
            said = f"no NVIDIA GPU: cells run on {available_cores()} CPU cores"
            yield Finding("GPUs", "warning", said, "fine for demo; real models need a GPU")
        else:
            said = "nvidia-smi is there and does not answer"
            yield Finding("GPUs", "error", said, "reinstall or reload the driver, or ask its admin")
        return
    for gpu in context.gpus:
        total, used = float(gpu["memory.total"]) * 2**20, float(gpu["memory.used"]) * 2**20
        name = f"GPU {gpu['index']}"
        said = (
            f"{gpu['name']}, {size(total)}, {size(total - used)} free, driver "
            + gpu["driver_version"]
        )
        if used > BUSY_BYTES:
            advice = "wait, or leave it out with --device; `nvidia-smi` shows whose it is"
            users = ", ".join(users_of(gpu["uuid"]))
            told = f"others use {size(used)}{f': {users}' if users else ''}"
            yield Finding(name, "warning", f"{said}; {told}", advice)
        else:
            yield Finding(name, "ok", said)


def check_visible(context: Context) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES, and cards of a shared node that are not the job's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        if "SLURM_JOB_ID" in os.environ and len(context.gpus) > 1:
            said = "in a Slurm job without CUDA_VISIBLE_DEVICES all GPUs of the node are seen"
            advice = "ask for GPUs (`--gres=gpu:N`), else cells use those of others"
            yield Finding("CUDA_VISIBLE_DEVICES", "error", said, advice)
        return
    try:
        found = visible_gpus()
    except UsageError as fault:
        said = str(fault).removeprefix("CUDA_VISIBLE_DEVICES=").split("; unset it")[0]
        advice = "unset it, or name what `nvidia-smi -L` lists: cells are refused"
        yield Finding("CUDA_VISIBLE_DEVICES", "error", said, advice)
        return
    if not found and context.gpus:
        said = f"'{visible}' hides the {len(context.gpus)} GPUs of this machine"
        advice = "unset it, unless cells are to run on the CPU"
        yield Finding("CUDA_VISIBLE_DEVICES", "warning", said, advice)
    else:
        names = ", ".join(gpu.title or gpu.name for gpu in found)
        said = f"'{visible}': {len(found)} GPUs{f' ({names})' if names else ''}"
        yield Finding("CUDA_VISIBLE_DEVICES", "ok", said)


def check_cuda(context: Context) -> Iterator[Finding]:
    """Whether torch computes on each GPU that cells would see: its build, its CUDA, its kernels."""
    if context.on_login_node:
        return
    try:
        gpus = visible_gpus()
    except UsageError:
        return  # told of CUDA_VISIBLE_DEVICES
    if not gpus:
        [found] = probe({"cpu": None}).values()
        if "torch" in found:
            yield Finding("CUDA", "ok", f"torch {found['torch']}, on the CPU")
        else:
            yield Finding("CUDA", "error", found["fault"], "install torch anew")
        return
    fault = build_fault(gpus)
    if fault is not None:
        yield _cuda_error("CUDA", fault)
        return
    named = {f"cuda:{index}": gpu for index, gpu in enumerate(gpus)}
    for device, found in probe(named).items():
        fault = probe_fault(found, device)
        if fault is not None:
            yield _cuda_error(f"CUDA {device}", fault)
        else:
            bf16 = "bf16" if found["bf16"] else "no bf16: `auto` is fp16"
            said = f"torch {found['torch']}, CUDA {found['cuda']} on {found['name']}; {bf16}"
            yield Finding(f"CUDA {device}", "ok", f"{said}; {size(found['free'])} free")


def _cuda_error(name: str, fault: str) -> Finding:
    said, _, advice = fault.rpartition("; ")
    return Finding(name, "error", said, advice)


def to_do(context: Context) -> list[CellState]:
    """The grid's cells that are still to be run; none without a grid."""
    return [] if context.grid is None else [s for s in context.grid.left if s.status != "done"]


def check_gpu_memory(context: Context) -> Iterator[Finding]:
    """What the grid's cells need on a GPU, as `plan` estimates it, against the smallest one."""
    states = to_do(context)
    if not states or not context.gpus:
        return
    smallest = min(float(gpu["memory.total"]) * 2**20 for gpu in context.gpus)
    largest, cell = max(
        ((_gpu_bytes(state), state.cell) for state in states), key=lambda pair: pair[0]
    )
    said = (
        f"{cell.label} needs about {size(largest)} on each GPU, the smallest has {size(smallest)}"
    )
    needed = max(state.cell.gpus_per_cell for state in states)
    if needed > len(context.gpus):
        few = f"a cell asks for {needed} GPUs, and {len(context.gpus)} are here"
        yield Finding(
            "GPU number", "error", few, "lower gpus_per_cell, or run where there are more"
        )
    if largest > smallest:
        advice = (
            "`zbench plan GRID --hardware ...` says what fits; raise gpus_per_cell, or quantise"
        )
        yield Finding("GPU memory", "warning", said, advice)
    else:
        yield Finding("GPU memory", "ok", said)


def _gpu_bytes(state: CellState) -> float:
    """Peak on a GPU of a cell in bf16, with sequences of full length."""
    cell = state.cell
    if cell.train is None or state.trained:
        return scoring_bytes(cell, "bf16")
    least = training_bytes(cell, "bf16", sequence_pass(cell))
    return max(least, scoring_bytes(cell, "bf16"))


def check_host_memory(context: Context) -> Iterator[Finding]:
    """Memory of the host, or of its cgroup, against what the workers need."""
    if context.on_login_node:
        return
    total, free, where = host_memory()
    said = f"{size(free)} free of {size(total)}{where}"
    states = to_do(context)
    if not states:
        yield Finding("host memory", "ok", said)
        return
    gpus = len(context.gpus)
    # On the CPU every worker holds the weights in fp32 and, to write a checkpoint, a copy of what
    # is trained; with GPUs weights go straight to them.
    workers = gpus or min(available_cores(), len(states))
    needed = 0.0
    for state in states:
        cell = state.cell
        at_once = max(1, workers // cell.gpus_per_cell)
        weights = 0 if gpus else 4.0 * cell.model.shape.num_parameters * cell.gpus_per_cell
        each = host_bytes(cell, trained=state.trained) + weights
        needed = max(needed, at_once * each)
    said = f"{said}; {workers} workers need about {size(needed)}"
    if needed > total:
        advice = "lower --workers, or give the job more memory (`--mem`)"
        yield Finding("host memory", "error", said, advice)
    elif needed > free:
        yield Finding("host memory", "warning", said, "end other programs, or lower --workers")
    else:
        yield Finding("host memory", "ok", said)


def host_memory() -> tuple[float, float, str]:
    """Bytes in all and free, and a word on a limit that is below the machine's memory."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    known = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines if ":" in line}
    total, free, where = known["MemTotal"], known["MemAvailable"], ""
    limit, used = cgroup_memory()
    if limit is not None and limit < total:
        free, where = min(free, limit - used), f" (a cgroup's limit; the machine has {size(total)})"
        total = limit
    return total, free, where


def cgroup_memory(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[float | None, float]:
    """The least limit of the cgroups that this process is in, and what is used of it."""
    least: tuple[float | None, float] = None, 0.0
    try:
        entries = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return least
    for entry in entries:
        _, kinds, path = entry.split(":", 2)
        if kinds not in ("", "memory") and "memory" not in kinds.split(","):
            continue
        base = root if not kinds else root / "memory"
        names = ("memory.max", "memory.current") if not kinds else (
            "memory.limit_in_bytes", "memory.usage_in_bytes"
        )  # fmt: skip
        place = base / path.lstrip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(base):
                break
            try:
                limit = float((folder / names[0]).read_text(encoding="utf-8"))
                used = float((folder / names[1]).read_text(encoding="utf-8"))
            except (OSError, ValueError):  # `max`, or none there
                continue
            if least[0] is None or limit < least[0]:
                least = limit, used
    return least


def check_shared_memory(context: Context) -> Iterator[Finding]:
    """/dev/shm, through which processes of one cell exchange."""
    if context.on_login_node:
        return
    try:
        found = shutil.disk_usage("/dev/shm")
    except OSError:
        yield Finding("/dev/shm", "warning", "is not there", "mount it; containers: --shm-size=8g")
        return
    several = any(state.cell.gpus_per_cell > 1 for state in to_do(context))
    said = f"{size(found.free)} free of {size(found.total)}"
    if found.free < LEAST_SHARED_MEMORY and (several or context.grid is None):
        advice = "cells of several GPUs need more; containers: --shm-size=8g or --ipc=host"
        yield Finding("/dev/shm", "warning", said, advice)
    else:
        yield Finding("/dev/shm", "ok", said)


def check_limits(context: Context) -> Iterator[Finding]:
    """Open files, processes and address space that a process may have."""
    if context.on_login_node:
        return
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    wrong, advice = [], []
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        wrong.append(f"{files} open files")
        advice.append(f"`ulimit -n {LEAST_FILES}`")
    if processes != resource.RLIM_INFINITY and processes < LEAST_PROCESSES:
        wrong.append(f"{processes} processes")
        advice.append(f"`ulimit -u {LEAST_PROCESSES}`")
    if space != resource.RLIM_INFINITY:
        wrong.append(f"{size(space)} of address space")
        advice.append("`ulimit -v unlimited` (CUDA maps more than it uses)")
    if wrong:
        told = " and ".join(advice)
        yield Finding(
            "limits", "warning", f"only {', '.join(wrong)}", f"{told} in the job's script"
        )
    else:
        shown = [
            "no limit" if n == resource.RLIM_INFINITY else f"{n:,}" for n in (files, processes)
        ]
        yield Finding("limits", "ok", f"open files: {shown[0]}, processes: {shown[1]}")
