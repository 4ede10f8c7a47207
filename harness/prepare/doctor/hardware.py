"""GPUs and their driver, memory of the host, and the limits of a process."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.estimate.compute import checkpoint_bytes, scoring_bytes, training_bytes
from harness.execution.devices import available_cores, count_cuda_devices
from harness.grid.status import CellState
from harness.prepare.doctor.finding import Context, Finding, ask, run, size

BUSY_BYTES = 1e9
"""Of a GPU's memory, above which somebody else computes there."""
TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
try:
    torch.cuda.init()
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    found |= {"names": names, "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
except Exception as fault:
    found["fault"] = str(fault).splitlines()[0][:200] if str(fault) else type(fault).__name__
print(json.dumps(found))
"""
TORCH_SECONDS = 120.0
WORKER_BYTES = 1.5e9
"""Of a worker beside weights: libraries, data, items. 0.7 GB were measured with a tiny model."""
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
            yield Finding(name, "warning", f"{said}; others use {size(used)}", advice)
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
    names = [name.strip() for name in visible.split(",") if name.strip()]
    known = {gpu["index"] for gpu in context.gpus} | {gpu["uuid"] for gpu in context.gpus}
    strange = [n for n in names if n not in known and not any(k.startswith(n) for k in known)]
    if strange:
        said = f"'{visible}' names {', '.join(strange)}, which this machine has not"
        advice = "unset it, or give --device cpu: a cell would fail on a GPU that is not there"
        yield Finding("CUDA_VISIBLE_DEVICES", "error", said, advice)
    else:
        yield Finding("CUDA_VISIBLE_DEVICES", "ok", f"'{visible}': {count_cuda_devices()} GPUs")


def check_cuda(context: Context) -> Iterator[Finding]:
    """Whether torch computes on the GPUs: its CUDA against the driver's."""
    if context.on_login_node:
        return
    done = run(sys.executable, "-c", TORCH, seconds=TORCH_SECONDS)
    if done is None:
        said = f"torch does not start within {TORCH_SECONDS:.0f} s"
        yield Finding("CUDA", "error", said, "look at the driver (`nvidia-smi`) and the disk")
        return
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        yield Finding("CUDA", "error", f"torch does not start: {last}", "install torch anew")
        return
    version = f"torch {found['version']}"
    if found.get("names"):
        names = ", ".join(dict.fromkeys(found["names"]))
        bf16 = "bf16" if found["bf16"] else "no bf16: fp32 is computed in"
        yield Finding("CUDA", "ok", f"{version}, CUDA {found['cuda']} on {names}; {bf16}")
    elif not context.gpus:
        yield Finding("CUDA", "ok", f"{version}, on the CPU")
    elif found["cuda"] is None:
        said = f"{version} is a build without CUDA, and there are {len(context.gpus)} GPUs"
        advice = "install the CUDA build of that version (pytorch.org says how)"
        yield Finding("CUDA", "error", said, advice)
    else:
        newest = re.search(r"CUDA Version:\s*([\d.]+)", ask("nvidia-smi") or "")
        driver = f"the driver takes CUDA up to {newest[1]}" if newest else "the driver's is unknown"
        said = f"{version} is built for CUDA {found['cuda']}, {driver}: {found.get('fault')}"
        advice = "update the driver, or install torch for that CUDA"
        yield Finding("CUDA", "error", said, advice)


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
    tokens = float(cell.train.token_budget or cell.train.max_length)
    return max(training_bytes(cell, "bf16", tokens), scoring_bytes(cell, "bf16"))


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
    each = [
        (0 if gpus else 4.0 * s.cell.model.shape.num_parameters) + checkpoint_bytes(s.cell) / 3
        for s in states
    ]
    needed = max(each) * workers + workers * WORKER_BYTES
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
