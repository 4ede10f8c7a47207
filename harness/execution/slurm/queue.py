"""Which cells of a runs folder wait or run in Slurm's queue: one call of `squeue`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.execution.slurm.cluster import ANSWER_SECONDS, slurm
from harness.execution.slurm.script import IDS_FILE, JOB_FILE, MARK
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

SLURM_FOLDER = "slurm"
"""In the runs folder: one folder for each submission."""
ENDING_SECONDS = 60.0
"""A cancelled job has this long to write its checkpoint and to leave the queue; a requeued one, to
wait again."""
FIELDS = ("%F", "%K", "%T", "%N", "%V", "%S", "%L", "%r", "%k")


@dataclass(frozen=True)
class QueuedCell:
    """A cell in Slurm's queue."""

    cell_id: str
    job: str
    """`123_4`: the array's job and the element."""
    running: bool
    state: str
    """Slurm's own word: PENDING, RUNNING, COMPLETING, ..."""
    node: str
    """Where it runs; empty while it waits."""
    since: str
    """When it was submitted, or began to run: `2026-11-30T21:24:12`."""
    time_left: str
    """Of its time limit, as Slurm writes it: `1-07:59:31`, `UNLIMITED`."""
    reason: str
    """Why it waits: `Resources`, `Priority`, ..."""
    output: Path
    """What the job prints."""

    @property
    def logged(self) -> bool:
        """Whether the job logs its cell to MLflow by itself."""
        return _logs(self.output.parent)

    @property
    def array_job(self) -> str:
        """The job whose element it is."""
        return self.job.partition("_")[0]


def read_queue(runs_dir: Path, *, seconds: float = ANSWER_SECONDS) -> dict[str, QueuedCell]:
    """The cells of a runs folder in Slurm's queue, by id.

    Raises:
        UsageError: Slurm does not answer.
    """
    if not (runs_dir / SLURM_FOLDER).is_dir():
        return {}
    # With -a those in partitions that a site hides too.
    command = ("squeue", "-a", "-h", "-r", "-u", str(os.getuid()), "-o", "|".join(FIELDS))
    told = slurm(*command, seconds=seconds)
    found: dict[str, QueuedCell] = {}
    for line in told.splitlines():
        parts = line.split("|", len(FIELDS) - 1)
        if len(parts) == len(FIELDS) and (one := _queued(runs_dir, parts)) is not None:
            found.setdefault(one.cell_id, one)
    return found


def settled_queue(runs_dir: Path, cell_ids: Collection[str]) -> dict[str, QueuedCell]:
    """The queue, once no job of some cells is about to end: it may leave its cell to be done.

    Raises:
        UsageError: Slurm does not answer.
    """
    end = time.monotonic() + ENDING_SECONDS
    while True:
        queue = read_queue(runs_dir)
        ending = any(one.state == "COMPLETING" for key, one in queue.items() if key in cell_ids)
        if not ending or time.monotonic() > end:
            return queue
        time.sleep(1.0)


def _queued(runs_dir: Path, parts: list[str]) -> QueuedCell | None:
    """What a line of squeue says; None where its job is not of this runs folder.

    The submission's folder is known by its name, which is used once: other machines may see the
    runs folder at another place.
    """
    job, element, state, node, submitted, started, left, reason, comment = parts
    folder, _, first = comment.removeprefix(MARK).rpartition(":")
    if not comment.startswith(MARK) or not first.isdigit() or not element.isdigit():
        return None
    place = runs_dir / SLURM_FOLDER / Path(folder).name
    ids = submitted_ids(place)
    number = int(first) + int(element)
    if number >= len(ids):
        return None
    running = state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
    return QueuedCell(
        cell_id=ids[number],
        job=f"{job}_{element}",
        running=running,
        state=state,
        node=node if running else "",
        since=started if running else submitted,
        time_left=left,
        reason=reason.strip("()"),
        output=output_file(place, f"{job}_{element}"),
    )


def output_file(folder: Path, job: str) -> Path:
    """What a job of a submission prints."""
    return folder / f"{job}.out"


@lru_cache(maxsize=1000)
def submitted_ids(folder: Path) -> tuple[str, ...]:
    """The ids of a submission's cells, in the order of the cells' file; none of an unknown one."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (folder / IDS_FILE).read_text(encoding="utf-8").splitlines()
        return tuple(line.split()[0] for line in lines if line.strip())
    return ()


@lru_cache(maxsize=1000)
def _logs(folder: Path) -> bool:
    """Whether the jobs of a submission log to MLflow by themselves."""
    with contextlib.suppress(Unreadable):
        return read_json_object(folder / JOB_FILE).get("tracking") is not None
    return False
