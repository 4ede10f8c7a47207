"""What `nvidia-smi` says of this machine's GPUs: names, MIG slices, the driver, and who uses them.

torch is not imported, and no GPU is touched.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

SECONDS = 20.0
"""How long it has for an answer."""


@dataclass(frozen=True)
class Slice:
    """A MIG slice of a GPU: to CUDA a device of its own."""

    name: str
    """As torch calls it, such as `NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    uuid: str


@dataclass(frozen=True)
class ListedGpu:
    """A GPU as `nvidia-smi -L` lists it."""

    index: int
    name: str
    uuid: str
    slices: tuple[Slice, ...] = ()
    """Empty where the GPU is whole."""


def list_gpus() -> tuple[ListedGpu, ...]:
    """The GPUs of this machine; none where nvidia-smi is not there or does not answer."""
    found: list[ListedGpu] = []
    for line in (ask("-L") or "").splitlines():
        gpu = re.match(r"GPU (\d+): (.*?) \(UUID: (\S+)\)", line)
        mig = re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)", line)
        if gpu:
            found.append(ListedGpu(int(gpu[1]), gpu[2], gpu[3]))
        elif mig and found:
            last = found[-1]
            part = Slice(f"{last.name} MIG {mig[1]}", mig[2])
            found[-1] = ListedGpu(last.index, last.name, last.uuid, (*last.slices, part))
    return tuple(found)


def driver_cuda() -> str | None:
    """The newest CUDA that the driver takes, such as `12.4`; None where nothing tells."""
    found = re.search(r"CUDA (?:UMD )?Version:\s*([\d.]+)", ask() or "")
    return None if found is None else found[1]


def users_of(uuid: str) -> tuple[str, ...]:
    """Other processes that compute on a GPU, such as `python (process 4242, 66.0 GB)`.

    In a container nvidia-smi names none of those outside.
    """
    fields = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"
    rows = [
        row.split(", ") for row in (ask(fields, "--format=csv,noheader,nounits") or "").splitlines()
    ]
    found = []
    for row in rows:
        if len(row) < 4 or row[0] != uuid or row[1] == str(os.getpid()):
            continue
        name = ", ".join(row[2:-1]).split("/")[-1]
        used = f", {float(row[-1]) * 2**20 / 1e9:.1f} GB" if row[-1].isdigit() else ""
        found.append(f"{name} (process {row[1]}{used})")
    return tuple(found)


def ask(*arguments: str) -> str | None:
    """What nvidia-smi prints; None where it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")
