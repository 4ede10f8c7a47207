"""The doctor as a Slurm job: what a node is like, asked by the words of the site file."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import StorageError, UsageError, one_line
from harness.execution.site import Site
from harness.grid.shared_folder import begin_probe, end_probe
from harness.prepare.doctor.finding import ask

ANSWER = "answer.json"
OUTPUT = "output.txt"


def run_as_job(arguments: Sequence[str], site: Site, runs_dir: Path) -> tuple[str, dict[str, Any]]:
    """Runs `zbench doctor ARGUMENTS --json` as a job and waits for it; ctrl-C cancels it.

    The job also answers the probe of the runs folder: how far its locks reach is known then.

    Returns:
        The job's number, and what it answered.

    Raises:
        UsageError: Slurm refuses the job, or its node does not see the runs folder.
        StorageError: the job ended without an answer; its output is quoted.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("--as-job: no sbatch here; run it where jobs are submitted")
    if ask("sinfo", "--noheader", "--format=%P") is None:
        raise UsageError("--as-job: sbatch is here, and no Slurm answers; see `sinfo`")
    runs_dir.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=runs_dir.resolve(), prefix=".doctor-job-"))
    try:
        with begin_probe(runs_dir) as probe:
            script = place / "job.sh"
            script.write_text(_script(arguments, site, place, probe.path), encoding="utf-8")
            job = _submit_and_wait(script, site, place)
            answer = _answer(place)
            if answer is None:
                raise StorageError(f"job {job} ended without an answer: {_last_line(place)}")
            end_probe(probe, patience_seconds=10)
        return job, answer
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _script(arguments: Sequence[str], site: Site, place: Path, probe: Path) -> str:
    python = shlex.quote(sys.executable)
    words = shlex.join([*arguments, "--json"])
    answer, temporary = (shlex.quote(str(place / n)) for n in (ANSWER, f"{ANSWER}.part"))
    return "\n".join(
        [
            "#!/bin/bash",
            *site.setup,
            f"cd {shlex.quote(os.getcwd())}",
            f"{python} -m harness.grid.shared_folder {shlex.quote(str(probe))}",
            f"{python} -m harness.cli doctor {words} > {temporary}",
            "code=$?",
            f"mv {temporary} {answer}",
            "exit $code",
            "",
        ]
    )


def _submit_and_wait(script: Path, site: Site, place: Path) -> str:
    """The number of a job that has ended.

    Raises:
        UsageError: Slurm refuses it.
    """
    own = ("--parsable", "--job-name", "zbench-doctor", "--output", str(place / OUTPUT))
    command = ["sbatch", *_gpu_words(site), *site.sbatch, *own, "--wait", str(script)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    job = process.stdout.readline().strip().split(";")[0]
    if not job:
        said = [line for line in process.stderr.read().splitlines() if line.strip()]
        raise UsageError(
            f"--as-job: Slurm refuses the job ({one_line(said[-1]) if said else 'no reason'}); "
            "correct `sbatch` in the site file"
        )
    try:
        process.wait()
    except BaseException:  # ctrl-C: nobody waits for its answer any more
        with contextlib.suppress(OSError):
            subprocess.run(["scancel", job], check=False, timeout=20)
        raise
    return job


def _gpu_words(site: Site) -> list[str]:
    """Words that ask for a GPU, where the cluster has some and the site file says nothing of it."""
    said = any("gres" in word or "gpu" in word for word in site.sbatch)
    there = "gpu" in (ask("sinfo", "--noheader", "--format=%G") or "")
    return ["--gres=gpu:1"] if there and not said else []


def _answer(place: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((place / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _last_line(place: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (place / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        if lines:
            return one_line(lines[-1])
    return "no output; `scontrol show job` says why"
