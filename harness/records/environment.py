"""Where and with what a number was made: versions, host, device, commit."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = (
    "zbench",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "datasets",
    "lm_eval",
    "mlflow",
)

DETERMINISTIC = "ZBENCH_DETERMINISTIC"
"""Environment variable: where it is set, CUDA runs kernels that give the same bits every time."""


def prepare_torch(threads: int) -> None:
    """Sets up this process' torch: its CPU threads, and deterministic kernels where asked for."""
    import torch

    torch.set_num_threads(threads)
    if os.environ.get(DETERMINISTIC, "0") not in ("", "0"):
        # Read by cuBLAS when it is first used: without a fixed workspace it refuses the mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def describe_environment(device: str | None = None) -> dict[str, str]:
    """What a reader needs to know of the machine, as text by name.

    `device` is a torch device to describe; torch is only imported where it is given.
    """
    described = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "git_commit": git_commit() or "unknown",
        **placed_by(),
        **package_versions(),
    }
    if device is not None:
        import torch

        if device.startswith("cuda"):
            described["device"] = torch.cuda.get_device_name(device)
        else:
            described["device"] = f"{processor()}, {torch.get_num_threads()} threads"
    return described


RAY_JOB, RAY_RESTARTS = "ZBENCH_RAY_JOB", "ZBENCH_RAY_RESTARTS"
"""Environment variables of the processes that a task of a Ray cluster starts."""


def placed_by() -> dict[str, str]:
    """The scheduler's job that this process is of, and how often it was requeued; empty of none."""
    if (job := os.environ.get(RAY_JOB)) is not None:
        return {"job": f"Ray {job}", "restarts": os.environ.get(RAY_RESTARTS, "0")}
    if (job := os.environ.get("SLURM_JOB_ID")) is None:
        return {}
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    name = job if array is None else f"{array}_{index}"
    return {"job": f"Slurm {name}", "restarts": os.environ.get("SLURM_RESTART_COUNT", "0")}


@cache
def package_versions() -> dict[str, str]:
    """The installed versions of the packages that make the numbers."""
    versions = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, `+changes` where it has any.

    None where it runs from no checkout.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "harness")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def processor() -> str:
    """The name of the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
