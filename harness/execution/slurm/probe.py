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


def probe(runs_dir: Path, key: str, words: Words, site: Site) -> str | None:
    """Asks a job on a partition what it sees of the runs folder, and keeps the answer.

    Returns:
        What the user should know of it, if anything.

    Raises:
        UsageError: the nodes do not see the folder, or cannot run zbench.
    """
    with begin_probe(runs_dir) as asked:
        output = asked.path.with_name(f"{asked.path.name}.out")
        try:
            if not _ran(asked, output, words, site):
                return (
                    f"whether the nodes of {key} see {runs_dir} is not known: a job that was to "
                    f"tell did not run within {PROBE_SECONDS:.0f} s. Where they do not, the jobs "
                    "fail at once"
                )
            reach = end_probe(asked, PATIENCE_SECONDS)
        except UsageError as fault:
            if isinstance(fault, SlurmRefused) or not (said := _said(output)):
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


def _ran(asked: FolderProbe, output: Path, words: Words, site: Site) -> bool:
    """Runs the job; whether it has ended in time."""
    path = shlex.quote(str(asked.path))
    python = f"${{ZBENCH_PYTHON:-{shlex.quote(sys.executable)}}}"
    lines = ["#!/bin/bash", *site.setup, f"{python} -m harness.grid.shared_folder {path}"]
    job = slurm(
        "sbatch", "--parsable", *words.at_once, "--time=1", "--job-name=zbench-probe", "--nodes=1",
        "--ntasks=1", "--no-requeue", f"--output={str(output).replace('%', '%%')}",
        script="\n".join(lines) + "\n",
    ).partition(";")[0]  # fmt: skip
    end = time.monotonic() + PROBE_SECONDS
    try:
        while _is_queued(job):
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
    finally:
        with contextlib.suppress(UsageError):
            slurm("scancel", "--quiet", job)
    return True


def _is_queued(job: str) -> bool:
    try:
        return bool(slurm("squeue", "-h", "-j", job, "-o", "%T"))
    except SlurmRefused:  # a job that is over and forgotten is an invalid one
        return False


def _said(output: Path) -> str:
    """The last line that the job printed."""
    with contextlib.suppress(OSError):
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return one_line(lines[-1]) if lines else ""
    return ""
