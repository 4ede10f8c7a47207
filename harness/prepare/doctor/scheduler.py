"""Slurm and Ray: whether they are there, and take what the site file says."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
from collections.abc import Iterator

from harness.prepare.doctor.finding import Context, Finding, run

UNSEEN = "GPUs, memory, limits and local disks of the nodes are not known here"


def check_login_node(context: Context) -> Iterator[Finding]:
    """That this is no machine that runs cells, and what therefore nobody knows."""
    if context.on_login_node:
        advice = "`zbench doctor --as-job` asks a node, by the words of the site file"
        yield Finding("this machine", "unknown", f"a login node: {UNSEEN}", advice)


def check_slurm(context: Context) -> Iterator[Finding]:
    """Slurm's version, and whether it would take a job with the words of the site file."""
    wanted = context.executor == "slurm"
    if shutil.which("sbatch") is None:
        if wanted:
            advice = "run where jobs are submitted, or load its module"
            yield Finding("Slurm", "error", "no sbatch here", advice)
        return
    version = run("sbatch", "--version")
    if version is None or version.returncode or not context.has_slurm:
        said = "sbatch is here, and no Slurm answers"
        yield Finding("Slurm", "error" if wanted else "warning", said, "see `sinfo`")
        return
    if not wanted and not context.site.sbatch:
        yield Finding("Slurm", "ok", version.stdout.strip())
        return
    words = context.site.sbatch
    shown = " ".join(words) or "no words"
    tried = run("sbatch", "--test-only", *words, "--wrap", "true")
    if tried is None:
        said = f"{version.stdout.strip()}: slurmctld does not answer"
        yield Finding("Slurm", "error", said, "look at `sinfo`; ask the site's admins")
    elif tried.returncode:
        why = [line for line in tried.stderr.splitlines() if "error" in line] or ["no reason"]
        said = f"{version.stdout.strip()} refuses a job with {shown}: {why[-1].strip()[:200]}"
        advice = "correct `sbatch` in the site file (partition, account, time)"
        yield Finding("Slurm", "error", said, advice)
    else:
        yield Finding("Slurm", "ok", f"{version.stdout.strip()} takes a job with {shown}")


def check_ray(context: Context) -> Iterator[Finding]:
    """Ray here, and the cluster that RAY_ADDRESS names."""
    address = os.environ.get("RAY_ADDRESS", "")
    wanted = context.executor == "ray"
    if not wanted and not address:
        return
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("Ray", "error", "is not installed", "pip install 'zbench[ray]'")
        return
    if not address:
        said = f"Ray {version}; without RAY_ADDRESS it starts on this machine alone"
        yield Finding("Ray", "ok", said)
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or not port.isdigit():
        yield Finding("Ray", "unknown", f"Ray {version}; RAY_ADDRESS is '{address[:60]}'")
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as fault:
        said = f"Ray {version}: {address} does not answer ({fault.strerror or fault})"
        yield Finding("Ray", "error", said, "start its head (`ray start --head`), or correct it")
        return
    yield Finding("Ray", "ok", f"Ray {version}; {address} answers")
