"""The machine that is checked, and why there is nothing to check on it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

from harness.records.environment import describe_environment, package_versions


def refusal() -> str | None:
    """Why no card can be checked here, in one line; None where one can."""
    if torch.cuda.is_available():
        return None
    name = _nvidia_smi("name")
    if name is None:
        return (
            "gpu-check: this machine shows no CUDA device (nvidia-smi -L); "
            "`--device cpu --tiny` runs the logic of the checks alone"
        )
    if torch.version.cuda is None:
        return (
            f"gpu-check: {name} is here, but torch {torch.__version__} is the CPU build: install "
            f"torch {torch.__version__.split('+')[0]} from the normal package index into .venv"
        )
    return (
        f"gpu-check: {name} is here, but torch {torch.__version__} cannot use it: its CUDA is "
        f"{torch.version.cuda}, the driver is {_nvidia_smi('driver_version')}; "
        "update the driver, or install a torch for an older CUDA (CUDA_VISIBLE_DEVICES may hide "
        "the device too)"
    )


def describe(device: str) -> dict[str, Any]:
    """The card, its driver, the versions, the date and the commit."""
    found: dict[str, Any] = dict(describe_environment(device)) | dict(package_versions())
    found |= {"memory_gb": None, "driver": None, "cuda": torch.version.cuda}
    found["cudnn"] = torch.backends.cudnn.version() if torch.version.cuda else None
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "free_gb": round(torch.cuda.mem_get_info()[0] / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "processors": properties.multi_processor_count,
            "driver": _nvidia_smi("driver_version"),
        }
    return found


def _nvidia_smi(key: str) -> str | None:
    """One figure of the first card by its driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--query-gpu={key}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if lines else None
