"""The processes that run one cell, as their parent sees them: one per GPU, each a rank.

The parent takes part in no collective and watches every rank: the first that fails or dies fails
the cell with its reason, and the others are stopped. A cell of one GPU is a group of one rank,
whose process takes further cells.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from harness.cell.memory import SmallerBudget
from harness.cell.run import record_failure
from harness.errors import StorageError, TrainingError
from harness.execution.plan import RunPlan
from harness.execution.worker import RankFailed, work
from harness.grid.folders import LOG_FILE, cell_folder
from harness.grid.locks import locked
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


class CellGroup:
    """The ranks of one cell; rank 0 runs it, the others train with it.

    Args:
        devices: indices in `plan.devices`.
        idle: workers of these devices; a cell of one device takes the one that there is.
        timeout_seconds: how long a rank waits for the others.
    """

    def __init__(
        self,
        state: CellState,
        devices: Sequence[int],
        plan: RunPlan,
        *,
        idle: Sequence[Worker] = (),
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.state, self.devices, self.plan = state, devices, plan
        self.folder = cell_folder(plan.settings.runs_dir, state.cell)
        self.timeout_seconds = timeout_seconds
        self.started = time.monotonic()
        self.alone = len(devices) == 1
        if not self.alone:
            retire(idle)  # their models are still in the devices' memory
        self._start(idle if self.alone else ())

    def _start(self, idle: Sequence[Worker] = ()) -> None:
        """Starts the cell, with processes of its own where none is idle."""
        self.failures: list[RankFailed] = []
        self.ended: CellEnded | None = None  # from rank 0
        self.told_to_stop = False  # a rank exited after SIGTERM and its checkpoint: no failure
        self._freed: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if self.alone:
            self.workers = list(idle) or [start_worker(self.devices[0], self.plan)]
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="zbench-group-")
            store, size = f"{self._folder.name}/store", len(self.devices)
            self.workers = []  # by rank
            for rank, device in enumerate(self.devices):
                ranks = RankInfo(rank, size, store, self.timeout_seconds)
                settings = replace(self.plan.settings, rank_info=ranks)
                self.workers.append(start_worker(device, replace(self.plan, settings=settings)))
        for worker in self.workers:
            with contextlib.suppress(OSError):  # a worker that has died: `events` reports it
                worker.pipe.send(self.state.cell)

    @property
    def over(self) -> bool:
        """Whether nothing is to come."""
        finished = self.alone and self.ended is not None
        return finished or all(worker.exited for worker in self.workers)

    def handles(self) -> list[Any]:
        """What to wait for, with `multiprocessing.connection.wait`."""
        left = [worker for worker in self.workers if not worker.exited]
        return [handle for worker in left for handle in (worker.pipe, worker.process.sentinel)]

    def events(self) -> Iterator[Event]:
        """Yields what has happened since the last call; `CellEnded` is the last of a cell."""
        yield from self._update()
        first = self.workers[0]
        memory = [fault for fault in self.failures if fault.kind == SmallerBudget.__name__]
        if memory:  # the cell resumes in fresh processes
            self.stop()
            yield Warned(self.state.cell.id, memory[0].message, restarts=True)
            self._start()
        elif self.failures:
            yield self._failed()
        elif self.ended is not None and (self.alone or self.ended.elsewhere or first.exited):
            if not self.alone:
                self.stop()  # the others have nothing left to do
            yield self.ended
        elif self.told_to_stop:
            if self.over:
                self.stop()
                yield self._end(
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

    def drain(self, deadline: float) -> None:
        """Receives until every rank has exited, so that none waits for room in its pipe.

        A rank that waits for another that has failed cannot handle SIGTERM: the first failure ends
        it too. So does the deadline, of the monotonic clock.
        """
        while not self.over and not self.failures and time.monotonic() < deadline:
            self._update(timeout=0.5)

    def stop(self) -> None:
        """Kills every rank that is left."""
        for worker in self.workers:
            worker.kill()
        if self._folder is not None:
            self._folder.cleanup()

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
        with contextlib.suppress(StorageError), locked(self.folder):  # unless one has taken it on
            record_failure(self.state.cell, self.folder, TrainingError(reason))
        return self._end(reason)

    def _reason(self) -> str:
        log = self.folder / LOG_FILE
        if not self.failures:
            return f"its process ended without a result; see {log}"
        first = min(self.failures, key=lambda failure: (failure.lost_others, failure.seconds))
        place = f"rank {first.rank} of {len(self.workers)}"
        if first.lost_others:
            return f"{place} waited for the others in vain ({first.message}); see {log}"
        same = len(self.failures) > 1 and len({fault.message for fault in self.failures}) == 1
        return first.message if first.rank == 0 or same else f"{place}: {first.message}"

    def _end(self, error: str) -> CellEnded:
        seconds = time.monotonic() - self.started
        return CellEnded(self.state.cell.id, str(self.folder), seconds, error)
