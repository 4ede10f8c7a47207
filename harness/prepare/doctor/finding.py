"""What a check is given, and what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.execution.site import Site
from harness.grid.workspace import OpenGrid

Status = Literal["ok", "warning", "error", "unknown"]
SECONDS = 20.0
"""How long a program or server that is asked has for its answer."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    said: str
    """What is so, in one line."""
    advice: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True)
class Context:
    """What is looked at: this machine, for the grid and the folders that the command line names."""

    runs_dir: Path
    data_root: Path | None = None
    tracking_uri: str | None = None
    grid: OpenGrid | None = None
    grid_faults: tuple[str, ...] = ()
    """Why the grid that was named cannot be opened."""
    executor: str = "local"
    site: Site = field(default_factory=Site)

    @cached_property
    def gpus(self) -> list[dict[str, str]]:
        """The GPUs of this machine as nvidia-smi has them; none where it is not there or fails."""
        names = ("index", "name", "memory.total", "memory.used", "driver_version", "uuid")
        answer = ask(
            "nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"
        )
        rows = [line.split(", ") for line in answer.splitlines()] if answer else []
        return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]

    @cached_property
    def has_slurm(self) -> bool:
        """Whether a Slurm answers here."""
        there = shutil.which("sbatch") is not None
        return there and ask("sinfo", "--noheader", "--format=%P") is not None

    @cached_property
    def on_login_node(self) -> bool:
        """Whether this is where jobs are submitted, not where they run."""
        return self.has_slurm and "SLURM_JOB_ID" not in os.environ and not self.gpus


Check = Callable[[Context], Iterator[Finding]]


def ask(*command: str, seconds: float = SECONDS) -> str | None:
    """What a program prints; None where it is not there, fails, or does not answer in time."""
    done = run(*command, seconds=seconds)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def run(*command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str] | None:
    """A program's end; None where it is not there or does not answer in time."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def size(count: float) -> str:
    """Bytes in words."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit in units if count >= units[unit]), "kB")
    return f"{count / units[unit]:,.1f} {unit}"
