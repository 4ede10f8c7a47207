"""Whether the nodes of a partition see the runs folder, and can run zbench: a job tells."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from pathlib import Path

from harness.errors import StorageError, UsageError, one_line
from harness.execution.site import Site
from harness.execution.slurm.cluster import SlurmRefused, slurm
from harness.execution.slurm.queue import SLURM_FOLDER
from harness.execution.slurm.script import sbatch_gpus
from harness.execution.slurm.words import Words
from harness.grid.shared_folder import FolderProbe, begin_probe, end_probe
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text

PROBED_FILE = "seen-by.json"
"""In the runs folder's `slurm`: how far its locks reach, by the partitions that were asked."""
PROBE_SECONDS = 120.0
"""How long the job may wait and run; a queue that takes longer leaves the question open."""
PATIENCE_SECONDS = 10.0
"""How much later than the job's end its answer may be seen here."""


def is_probed(runs_dir: Path, key: str) -> bool:
    """Whether the nodes of a cluster's partition are known to see the folder."""
    return key in _kept(runs_dir)


def keep(runs_dir: Path, key: str, reach: str) -> None:
    """Notes that the nodes of a partition see the folder, and how far its locks reach."""
    with contextlib.suppress(StorageError):  # it is asked once more
        text = json.dumps(_kept(runs_dir) | {key: reach}, indent=1) + "\n"
        write_text(runs_dir / SLURM_FOLDER / PROBED_FILE, text)


def _kept(runs_dir: Path) -> dict[str, object]:
    with contextlib.suppress(Unreadable):
        return dict(read_json_object(runs_dir / SLURM_FOLDER / PROBED_FILE))
    return {}


def probe(runs_dir: Path, key: str, words: Words, site: Site, device: str) -> str | None:
    """Asks a job on a partition what it sees of the runs folder, and keeps the answer.

    Returns:
        What the user should know of it, if anything.

    Raises:
        UsageError: the nodes do not see the folder, or cannot run zbench.
    """
    with begin_probe(runs_dir) as asked:
        output = asked.path.with_name(f"{asked.path.name}.out")
        try:
            if (why := _not_run(asked, output, words, site, device)) is not None:
                return (
                    f"whether the nodes of {key} see {runs_dir} is not known: {why}. Where they do "
                    "not, the jobs fail at once"
                )
            reach = end_probe(asked, PATIENCE_SECONDS)
        except UsageError as fault:
            if not (said := _said(output)):
                raise
            raise UsageError(
                f"a job on the nodes of {key} cannot run zbench: {said}; see to `setup` in the "
                "site file, so that this Python starts there"
            ) from fault
        finally:
            with contextlib.suppress(OSError):
                output.unlink()
    keep(runs_dir, key, reach)
    if reach != "node":
        return None
    return (
        f"{runs_dir}: its file locks hold within one machine alone; Slurm keeps two jobs from one "
        "cell, and nothing keeps another command from it: run none in this folder meanwhile"
    )


def _not_run(asked: FolderProbe, output: Path, words: Words, site: Site, device: str) -> str | None:
    """Runs the job; why it has not run, if so: that is no fault of the cells' jobs."""
    path = shlex.quote(str(asked.path))
    python = f"${{ZBENCH_PYTHON:-{shlex.quote(sys.executable)}}}"
    lines = ["#!/bin/bash", *site.setup, f"{python} -m harness.grid.shared_folder {path}"]
    call = [
        "sbatch", "--parsable", *words.at_once, "--time=1", "--job-name=zbench-probe", "--nodes=1",
        "--ntasks=1", "--no-requeue", f"--output={str(output).replace('%', '%%')}",
    ]  # fmt: skip
    script, gpu = "\n".join(lines) + "\n", sbatch_gpus(words.gpu_type, 1)
    try:
        try:
            job = slurm(*call, script=script)
        except SlurmRefused:
            if device != "cuda":
                raise
            job = slurm(*call, gpu, script=script)  # a partition that takes no job without one
    except SlurmRefused as fault:
        return f"Slurm takes no job that is to tell ({fault})"
    job = job.partition(";")[0]
    end = time.monotonic() + PROBE_SECONDS
    try:
        while _is_queued(job):
            if time.monotonic() > end:
                return f"a job that was to tell did not run within {PROBE_SECONDS:.0f} s"
            time.sleep(0.3)
    finally:
        with contextlib.suppress(UsageError):
            slurm("scancel", "--quiet", job)
    return None


def _is_queued(job: str) -> bool:
    try:
        return bool(slurm("squeue", "-a", "-h", "-j", job, "-o", "%T"))
    except SlurmRefused:  # a job that is over and forgotten is an invalid one
        return False


def _said(output: Path) -> str:
    """The last line that the job printed."""
    with contextlib.suppress(OSError):
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return one_line(lines[-1]) if lines else ""
    return ""
