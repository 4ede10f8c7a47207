"""What is known of the cells that run or wait in a queue: where, since when, how far they are."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.grid.folders import runs_folders
from harness.grid.locks import holder
from harness.grid.status import CellState
from harness.records.cell_progress import CellProgress, format_seconds, stored_progress

if TYPE_CHECKING:
    from harness.execution.slurm.queue import QueuedCell

QUEUE_SECONDS = 10.0
"""A queue that does not answer so long is taken for what it was."""
SILENT_SECONDS = 600.0
"""A cell without an event for so long is said to be silent: it loads a large model, or hangs."""


@dataclass(frozen=True)
class Live:
    """A cell that runs or waits in a queue."""

    progress: CellProgress = CellProgress()
    process: int | None = None
    host: str | None = None
    job: QueuedCell | None = None
    """Its job, where it is in a scheduler's queue."""
    waits: bool = False
    """It does not run yet."""

    @property
    def place(self) -> str:
        """Where it runs: `process 4711 on node7`, `job 123_4 on node7`."""
        if self.job is not None:
            return f"job {self.job.job}" + (f" on {self.job.node}" if self.job.node else "")
        if self.process is None:
            return "another process"
        return f"process {self.process} on {self.host}"

    @property
    def since(self) -> str:
        """Since when: `since 21:03 (12 min)`; empty where that is not known."""
        if not self.progress.started_ms:
            return ""
        took = max(time.time() - self.progress.started_ms / 1000, 0)
        moment = datetime.fromtimestamp(self.progress.started_ms / 1000, UTC).astimezone()
        form = "%H:%M" if took < 12 * 3600 else "%d %b %H:%M"
        return f"since {moment:{form}} ({format_seconds(took)})"

    @property
    def silence(self) -> str:
        """`no word for 20 min`; empty where it spoke lately."""
        silent = time.time() - self.progress.last_ms / 1000 if self.progress.last_ms else 0
        return f"no word for {format_seconds(silent)}" if silent > SILENT_SECONDS else ""

    def __str__(self) -> str:
        """All of it in one line."""
        if self.waits and self.job is not None:
            return f"{self.place}, {self.queue}"
        where = ", ".join(filter(None, [self.place, self.since, self.silence]))
        return f"{self.progress}; {where}"

    @property
    def queue(self) -> str:
        """What the queue says of it: `pending since 21:03 (Resources)`."""
        if self.job is None:
            return ""
        state = self.job.state.lower().replace("_", " ")
        moment = datetime.fromisoformat(self.job.since) if self.job.since[:1].isdigit() else None
        since = "" if moment is None else f" since {moment:%d %b %H:%M}"
        reason = f" ({self.job.reason})" if self.job.reason not in ("", "None") else ""
        return f"{state}{since}{reason}"

    def record(self) -> dict[str, Any]:
        """The same for a machine to read; times are UTC, durations seconds."""
        far, job = self.progress, self.job
        queue = {} if job is None else {
            "job": job.job, "node": job.node, "queue_state": job.state, "queue_since": job.since,
            "queue_reason": job.reason, "time_left_of_limit": job.time_left,
        }  # fmt: skip
        if self.waits:
            return queue
        return queue | {
            "process": self.process,
            "host": self.host,
            "since": _moment(far.started_ms),
            "last_event": _moment(far.last_ms),
            "part": far.part,
            "step": far.step,
            "total_steps": far.total_steps,
            "loss": far.loss,
            "validation_loss": far.validation_loss,
            "tokens_per_second": far.tokens_per_second,
            "done": far.done,
            "total": far.total,
            "seconds_left": far.seconds_left,
        }


def _moment(time_ms: int) -> str | None:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat() if time_ms else None


def live_cells(
    states: Sequence[CellState], jobs: Mapping[str, QueuedCell] | None = None
) -> dict[str, Live]:
    """The cells that run, by id, and those in a queue; of the running ones alone files are read.

    A job that runs while nobody holds its cell is starting, or about to end.
    """
    found: dict[str, Live] = {}
    for state in states:
        job = (jobs or {}).get(state.cell.id)
        if state.status == "running":
            found[state.cell.id] = _live(state.folder, job)
        elif job is not None and state.status in ("to do", "failed"):
            found[state.cell.id] = Live(job=job, waits=True)
    return found


def _live(folder: Path, job: QueuedCell | None) -> Live:
    progress = stored_progress(folder) or CellProgress()
    named = re.search(r"\((\d+) on (.+)\)$", holder(folder))
    process, host = (int(named[1]), named[2]) if named else (None, None)
    # A waiting job is no place: another process holds the cell.
    return Live(progress, process, host, job if job is not None and job.running else None)


def queued_jobs(
    runs: Path | Sequence[Path], before: Mapping[str, QueuedCell] | None = None
) -> dict[str, QueuedCell]:
    """The cells of runs folders in Slurm's queue, by id; `before` where it does not answer."""
    if shutil.which("squeue") is None:
        return {}
    from harness.execution.slurm.queue import read_queue

    try:
        found = [read_queue(folder, seconds=QUEUE_SECONDS) for folder in runs_folders(runs)]
    except UsageError:
        return dict(before or {})
    return {key: job for one in found for key, job in one.items()}
