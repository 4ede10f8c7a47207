"""What a Slurm cluster says of itself: its commands, its limits, and the nodes of a partition."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UsageError, one_line, shortened

ANSWER_SECONDS = 60.0
"""A controller that is busy answers late; sbatch itself tries for a minute."""
MAX_ARRAY_SIZE = 1001
"""Slurm's own default: indices from 0 to 1000."""


class SlurmRefused(UsageError):
    """A command of Slurm failed, with what it said."""


class SlurmAway(UsageError):
    """No controller answers."""


def slurm(*command: str, seconds: float = ANSWER_SECONDS, script: str = "") -> str:
    """The output of a Slurm command, which reads `script` from its input.

    Raises:
        SlurmRefused: it failed; the message is Slurm's own.
        SlurmAway: Slurm does not answer.
        UsageError: the command is not there.
    """
    # A user's own formats and filters would change what is read here.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SINFO_"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds,
            input=script, env=own | {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"},
        )  # fmt: skip
    except FileNotFoundError as fault:
        raise UsageError(
            f"{command[0]}: is not on PATH; run this on a login node of the cluster, or choose "
            "--executor local"
        ) from fault
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise SlurmAway(
            f"{command[0]}: Slurm does not answer ({one_line(fault)}); see `scontrol ping`"
        ) from fault
    if done.returncode != 0:
        raise SlurmRefused(f"{command[0]}: {said(done.stderr or done.stdout)}")
    return done.stdout.strip()


def said(text: str) -> str:
    """What a command of Slurm said, in one line without its own name before each part."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line) for line in text.splitlines()]
    return one_line("; ".join(dict.fromkeys(filter(None, map(str.strip, lines)))) or "no message")


def has_sbatch() -> bool:
    """Whether Slurm's commands are here."""
    return shutil.which("sbatch") is not None


@dataclass(frozen=True)
class Node:
    """A node of a partition."""

    name: str
    gpus: dict[str, int]
    """By type; the empty name where none is told."""
    cpus: int

    def count(self, device: str, kind: str = "") -> int:
        """How many devices it has: GPUs, of a type if one is asked for, or CPUs."""
        if device == "cpu":
            return self.cpus
        return sum(number for name, number in self.gpus.items() if not kind or name == kind)


@dataclass(frozen=True)
class Cluster:
    """A cluster, as far as submitting is concerned."""

    name: str
    max_array: int
    """Indices of an array are below it."""
    partition: str
    nodes: tuple[Node, ...]
    """Of the partition."""

    def largest(self, device: str, kind: str = "") -> int:
        """The devices of the node that has most of them."""
        return max((node.count(device, kind) for node in self.nodes), default=0)


def find_cluster(partition: str | None) -> Cluster:
    """The cluster, with the nodes of a partition; of the default one for None.

    Raises:
        SlurmAway: it does not answer.
        UsageError: it has no such partition.
    """
    try:
        config = slurm("scontrol", "show", "config")
        lines = slurm("sinfo", "-a", "-h", "-o", "%R|%P").splitlines()
    except SlurmRefused as fault:
        raise SlurmAway(f"Slurm does not answer: {fault}; see `scontrol ping`") from fault
    names = [line.partition("|")[0] for line in lines]
    default = next((line.partition("|")[0] for line in lines if line.endswith("*")), None)
    chosen = partition or default
    if chosen is None:
        raise UsageError("Slurm has no default partition; name one: --sbatch '--partition NAME'")
    for name in chosen.split(","):
        if name not in names:
            known = ", ".join(sorted(set(names)))
            raise UsageError(f"--partition {shortened(name)}: no such partition (known: {known})")
    found = slurm("sinfo", "-h", "-N", "-p", chosen, "-o", "%N|%c|%G")
    return Cluster(
        name=_setting(config, "ClusterName") or "",
        max_array=int(_setting(config, "MaxArraySize") or MAX_ARRAY_SIZE),
        partition=chosen,
        nodes=tuple(_nodes(found.splitlines())),
    )


def _setting(config: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*=\s*(\S+)", config, re.MULTILINE)
    return found[1] if found else None


def _nodes(lines: Iterable[str]) -> list[Node]:
    found: dict[str, Node] = {}
    for line in lines:
        name, cpus, gres = line.split("|", 2)
        found[name] = Node(name, gpus_of(gres), int(re.sub(r"\D", "", cpus) or 0))
    return list(found.values())


def gpus_of(gres: str) -> dict[str, int]:
    """The GPUs of a node's generic resources, `gpu:a100:4(S:0-1),gpu:v100:2`, by type."""
    found: dict[str, int] = {}
    for kind, number in re.findall(r"(?:^|,)gpu(?::([^:,()]+))??:(\d+)", gres):
        found[kind] = found.get(kind, 0) + int(number)
    return found
