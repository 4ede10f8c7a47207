"""The processes that run one cell, as their parent sees them: one per GPU, each a rank.

The parent takes part in no collective and watches every rank: the first that fails or dies fails
the cell with its reason, and the others are stopped. A cell of one GPU is a group of one rank,
whose process takes further cells.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.cell.memory import SmallerBudget
from harness.cell.run import record_failure
from harness.errors import TrainingError
from harness.execution.plan import RunPlan
from harness.execution.worker import RankFailed, work
from harness.grid.folders import LOG_FILE, cell_folder
from harness.grid.status import CellState
from harness.records.events import CellEnded, Event, Warned
from harness.training.process_group import TIMEOUT_SECONDS, RankInfo
from harness.training.signals import STOPPED

GRACE_SECONDS = 3.0
"""After the first failure the other ranks have this long to report theirs, which may be older."""


@dataclass
class Worker:
    """A process with a device of its own."""

    process: BaseProcess
    pipe: Connection
    """Cells go out, events and failures come in."""
    device: int
    """Index in `RunPlan.devices`."""
    exited: bool = False
    """The process has ended, and all that it sent is received."""

    def kill(self) -> None:
        """Ends the process now."""
        self.exited = True
        self.process.kill()
        self.process.join(timeout=10)
        self.pipe.close()


def start_worker(device: int, plan: RunPlan) -> Worker:
    """Starts a process on a device; it waits for a cell."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=work,
        args=(there, plan.devices[device], plan.settings, os.getpid()),
        daemon=True,
    )
    # A worker inherits that ctrl-C is blocked: its parent stops it. Blocked, not ignored, so that
    # the parent gets it once the worker is started. So is SIGUSR1, which would kill a worker that
    # is not ready for it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    there.close()
    return Worker(process, here, device)


def retire(workers: Sequence[Worker]) -> None:
    """Lets idle workers leave by themselves, and kills those that take too long."""
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join(timeout=5)
        worker.kill()


@dataclass
class CellGroup:
    """The ranks of one cell; rank 0 runs it, the others train with it."""

    state: CellState
    plan: RunPlan
    workers: Sequence[Worker]
    """By rank."""
    store: Path | None = None
    """Folder of the file through which several ranks find each other."""
    started: float = field(default_factory=time.monotonic)
    failures: list[RankFailed] = field(default_factory=list)
    ended: CellEnded | None = None
    """From rank 0."""
    told_to_stop: bool = False
    """A rank got SIGTERM and has exited after its checkpoint: no failure."""
    restarts: bool = False
    """A rank is out of memory: the cell resumes in fresh processes, see `restart`."""
    _freed: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Whether nothing is to come."""
        alone = len(self.workers) == 1 and self.ended is not None
        return alone or all(worker.exited for worker in self.workers)

    def handles(self) -> list[Any]:
        """What to wait for, with `multiprocessing.connection.wait`."""
        left = [worker for worker in self.workers if not worker.exited]
        return [handle for worker in left for handle in (worker.pipe, worker.process.sentinel)]

    def events(self) -> Iterator[Event]:
        """Yields what has happened since the last call; `CellEnded` is the last of a cell."""
        yield from self._update()
        alone, first = len(self.workers) == 1, self.workers[0]
        memory = [fault for fault in self.failures if fault.kind == SmallerBudget.__name__]
        if memory:
            self.stop()
            self.restarts = True
            yield Warned(self.state.cell.id, memory[0].message, restarts=True)
        elif self.failures:
            yield self._failed()
        elif self.ended is not None and (alone or self.ended.elsewhere or first.exited):
            if not alone:
                self.stop()  # the others have nothing left to do
            yield self.ended
        elif self.told_to_stop:
            if self.over:
                self.stop()
                yield self._ended(
                    "it was told to stop (SIGTERM); the same command resumes from its checkpoint"
                )
        elif first.exited:
            yield self._failed()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to every rank that is left."""
        for worker in self.workers:
            if not worker.exited and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)

    def take_freed(self) -> set[int]:
        """The devices that have become free since the last call."""
        free = {worker.device for worker in self.workers if worker.exited or self.over}
        freed, self._freed = free - self._freed, free
        return freed

    def restart(self) -> CellGroup:
        """Starts the cell in fresh processes on the same devices, once this group has exited."""
        devices = [worker.device for worker in self.workers]
        fresh = start_group(self.state, devices, self.plan)
        fresh.started = self.started
        return fresh

    def drain(self, deadline: float) -> None:
        """Receives until every rank has exited, so that none waits for room in its pipe.

        A rank that waits for another that has failed cannot handle SIGTERM: the first failure ends
        it too.

        Args:
            deadline: of the monotonic clock.
        """
        while not self.over and not self.failures and time.monotonic() < deadline:
            self._update(timeout=0.5)

    def stop(self) -> None:
        """Kills every rank that is left."""
        for worker in self.workers:
            worker.kill()
        if self.store is not None:
            shutil.rmtree(self.store, ignore_errors=True)

    def _update(self, timeout: float = 0.0) -> list[Event]:
        """Receives events and failures, and reaps the ranks that have exited."""
        if timeout > 0:
            wait(self.handles(), timeout)
        # Looked at first: all that a rank has sent lies in its pipe once it has exited.
        left = [worker for worker in self.workers if not worker.exited]
        exited = [worker for worker in left if not worker.process.is_alive()]
        events = [event for worker in left for event in self._receive(worker.pipe)]
        for worker in exited:
            self._reap(worker)
        return events

    def _receive(self, pipe: Connection) -> Iterator[Event]:
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                message = pipe.recv()
                if isinstance(message, RankFailed):
                    self.failures.append(message)
                elif isinstance(message, CellEnded):
                    self.ended = message
                else:
                    yield message

    def _reap(self, worker: Worker) -> None:
        """Notes why a rank's process has ended."""
        worker.exited = True
        rank, code = self.workers.index(worker), worker.process.exitcode or 0
        if code == STOPPED:
            self.told_to_stop = True
        elif code != 0 and not any(failure.rank == rank for failure in self.failures):
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            reason = f"its process ended with {how}{hint}; run the same command again"
            self.failures.append(
                RankFailed(rank, TrainingError.__name__, reason, False, time.monotonic())
            )

    def _failed(self) -> CellEnded:
        """Stops all ranks, and records the first failure as the cell's."""
        until = time.monotonic() + GRACE_SECONDS
        while self.failures and not self.over and (left := until - time.monotonic()) > 0:
            self._update(timeout=left)
        self.stop()
        reason = self._reason()
        folder = cell_folder(self.plan.settings.runs_dir, self.state.cell)
        record_failure(self.state.cell, folder, TrainingError(reason))
        return self._ended(reason)

    def _reason(self) -> str:
        log = cell_folder(self.plan.settings.runs_dir, self.state.cell) / LOG_FILE
        if not self.failures:
            return f"its process ended without a result; see {log}"
        first = min(self.failures, key=lambda failure: (failure.lost_others, failure.seconds))
        place = f"rank {first.rank} of {len(self.workers)}"
        if first.lost_others:
            return f"{place} waited for the others in vain ({first.message}); see {log}"
        same = len(self.failures) > 1 and len({fault.message for fault in self.failures}) == 1
        return first.message if first.rank == 0 or same else f"{place}: {first.message}"

    def _ended(self, error: str) -> CellEnded:
        folder = cell_folder(self.plan.settings.runs_dir, self.state.cell)
        return CellEnded(self.state.cell.id, str(folder), time.monotonic() - self.started, error)


def start_group(
    state: CellState,
    devices: Sequence[int],
    plan: RunPlan,
    *,
    idle: Worker | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> CellGroup:
    """Starts a cell on its devices.

    Args:
        state: the cell.
        devices: indices in `plan.devices`.
        plan: where the cell runs.
        idle: a worker of the one device, to be used again.
        timeout_seconds: how long a rank waits for the others.
    """
    if len(devices) == 1:
        group = CellGroup(state, plan, [idle or start_worker(devices[0], plan)])
    else:
        store = Path(tempfile.mkdtemp(prefix="zbench-group-"))
        workers = []
        for rank, device in enumerate(devices):
            ranks = RankInfo(rank, len(devices), str(store / "store"), timeout_seconds)
            own = replace(plan, settings=replace(plan.settings, rank_info=ranks))
            workers.append(start_worker(device, own))
        group = CellGroup(state, plan, workers, store)
    for worker in group.workers:
        with contextlib.suppress(OSError):  # a worker that has died: `events` reports it
            worker.pipe.send(state.cell)
    return group
