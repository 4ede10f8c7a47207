"""Follows cells that Slurm runs: by the event files in their folders, and by the queue."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError, one_line
from harness.execution.plan import RunPlan
from harness.execution.slurm.cluster import slurm
from harness.execution.slurm.queue import QueuedCell, read_queue
from harness.grid.status import CellState, read_states
from harness.records.event_file import EVENTS_FILE, EventReader
from harness.records.events import CellEnded, Event, Warned
from harness.records.results import RESULT_FILE

EVENT_SECONDS = 1.0
"""Between two looks at the event files."""
QUEUE_SECONDS = 5.0
"""Between two calls of squeue, which a site's controller must bear from every user."""
LATE_SECONDS = 30.0
"""A file may reach this machine so much later than the queue's word that its job is over."""
LAST_BYTES = 4000
"""Of a job's output, in which its last line is looked for."""


@dataclass
class Followed:
    """A cell with a job, as its follower sees it: from where its job begins.

    Made before the job is submitted, or looked for in the queue.
    """

    state: CellState
    job: str = ""
    output: Path = Path()
    """What its job prints."""
    queued: QueuedCell | None = None
    """What the queue said of it last."""
    gone: float | None = None
    """Since when the queue says nothing of it."""
    told: str = ""
    """What it waits for, as it was told."""

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.reader = EventReader(self.state.folder, from_end=True)
        self.result = _version(self.state.folder)

    def place(self, job: str, output: Path, queued: QueuedCell | None = None) -> None:
        """Notes its job; of one that runs already it is told what it did before."""
        self.job, self.output, self.queued = job, output, queued
        if _tells_of(self.state.folder, queued):
            self.reader = EventReader(self.state.folder)

    @property
    def seconds(self) -> float:
        """How long it has been followed."""
        return time.monotonic() - self.began


def _version(folder: Path) -> tuple[int, int] | None:
    """Which writing of a cell's result is there; None without one."""
    with contextlib.suppress(OSError):
        found = (folder / RESULT_FILE).stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _tells_of(folder: Path, queued: QueuedCell | None) -> bool:
    """Whether the event file is of the job that runs, and of none before."""
    if queued is None or not queued.running:
        return False
    with contextlib.suppress(OSError, ValueError):
        began = datetime.datetime.fromisoformat(queued.since).timestamp()  # of this time zone
        return (folder / EVENTS_FILE).stat().st_mtime >= began
    return False


def follow(cells: Sequence[Followed], plan: RunPlan) -> Iterator[Event]:
    """Yields the events of cells as they come, until all have ended."""
    left, looked = list(cells), 0.0
    while left:
        for one in list(left):
            for event in one.reader.new_events():
                yield event
                if isinstance(event, CellEnded):
                    left.remove(one)
                    break
        if left and time.monotonic() - looked >= QUEUE_SECONDS:
            looked = time.monotonic()
            queue = None
            with contextlib.suppress(UsageError):  # a controller that restarts ends nothing
                queue = read_queue(plan.settings.runs_dir)
            if queue is not None:
                for one in list(left):
                    told = list(_looked_up(one, queue.get(one.state.cell.id), plan))
                    yield from told
                    if any(isinstance(event, CellEnded) for event in told):
                        left.remove(one)
        if left:
            time.sleep(EVENT_SECONDS)


def _looked_up(one: Followed, queued: QueuedCell | None, plan: RunPlan) -> Iterator[Event]:
    """Yields what the queue's word about a cell means."""
    cell_id = one.state.cell.id
    if queued is not None:
        before, one.queued, one.gone = one.queued, queued, None
        if before is not None and before.running and not queued.running:
            yield Warned(cell_id, f"its job {one.job} waits again: {queued.reason}", restarts=True)
        needed = _needs_its_user(queued)
        if needed != one.told:
            one.told = needed
            if needed:
                yield Warned(cell_id, needed)
        return
    one.gone = one.gone or time.monotonic()
    is_late = time.monotonic() - one.gone >= LATE_SECONDS
    if (ended := _ended(one, plan, is_late=is_late)) is not None:
        # Its last events may have come since.
        events = list(one.reader.new_events())
        yield from events
        if not any(isinstance(event, CellEnded) for event in events):
            yield ended


def _needs_its_user(queued: QueuedCell) -> str:
    """What its user must do before a job can start; empty where it starts by itself."""
    held = re.search(r"held|Never", queued.reason, re.IGNORECASE)
    if queued.running or held is None:
        return ""
    return (
        f"its job {queued.job} does not start by itself ({queued.reason}); see `scontrol show job "
        f"{queued.job}`, then `scontrol release {queued.job}` or `scancel {queued.job}`"
    )


def _ended(one: Followed, plan: RunPlan, *, is_late: bool) -> CellEnded | None:
    """How a cell ended whose job has left the queue; None where that is not known yet."""
    settings, cell = plan.settings, one.state.cell
    [now] = read_states([cell], runs_dir=settings.runs_dir, data_root=settings.data_root)
    folder = str(now.folder)
    if now.status == "done":
        return CellEnded(cell.id, folder, one.seconds)
    anew = now.fault != one.state.fault or _version(now.folder) != one.result
    if now.status in ("failed", "stale") and anew:
        return CellEnded(cell.id, folder, one.seconds, now.fault)
    word = _last_word(one.job)
    if word == "CANCELLED" and now.status != "running":
        error = f"its job {one.job} was cancelled; the same command resumes from its checkpoint"
        return CellEnded(cell.id, folder, one.seconds, error)
    if not is_late:
        return None
    if now.status == "running":
        return CellEnded(cell.id, folder, one.seconds, elsewhere=True)
    said = _last_line(one.output)
    how = f" ({word})" if word else ""
    error = f"its job {one.job} has left the queue without a result{how}; see {one.output}{said}"
    return CellEnded(cell.id, folder, one.seconds, error)


def _last_word(job: str) -> str:
    """The state in which Slurm remembers a job; empty where it does not."""
    with contextlib.suppress(UsageError):
        found = re.search(r"\bJobState=(\w+)", slurm("scontrol", "-o", "show", "job", job))
        return found[1] if found else ""
    return ""


def _last_line(output: Path) -> str:
    """The last line of what a job printed, to be put behind the file's name."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - LAST_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
        return f": {one_line(lines[-1])}" if lines else ", which is empty"
    return ", which is not there: no node has written it"
