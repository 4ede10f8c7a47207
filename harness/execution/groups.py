"""A cell that several devices train together: one process per device, for this cell alone.

The parent, which takes part in no collective, watches over all of them: the first that fails or
dies fails the cell with its reason, and the others are stopped.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.memory import SmallerBudget
from harness.cell.run import describe, follow_cell, record_failure, run_cell
from harness.cell.settings import RunSettings
from harness.errors import TrainingError
from harness.execution.worker import log_progress, log_to, prepare_worker
from harness.grid.folders import LOG_FILE, CellBusy, cell_folder
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.records.events import CellEnded, Event, Warned
from harness.training.process_group import TIMEOUT_SECONDS, RankInfo
from harness.training.signals import STOPPED, Stopped

if TYPE_CHECKING:
    from harness.execution.plan import RunPlan

GRACE_SECONDS = 3.0
"""After the first failure the others have so long to tell theirs, which may have come before it."""


@dataclass(frozen=True)
class RankFailed:
    """What a process tells before it ends for a fault."""

    rank: int
    kind: str
    """The fault's type."""
    message: str
    lost_others: bool
    """It failed because another was gone or silent: no reason of its own."""
    seconds: float
    """Of the machine's monotonic clock."""


@dataclass
class _Member:
    process: BaseProcess
    pipe: Connection
    device: int
    open: bool = True
    """The pipe is not at its end."""


@dataclass
class CellGroup:
    """The processes of one cell; rank 0 runs it, the others train with it."""

    state: CellState
    plan: RunPlan
    members: list[_Member]
    folder: Path
    """Where they find each other."""
    started: float
    faults: list[RankFailed] = field(default_factory=list)
    ended: CellEnded | None = None
    """As rank 0 told it."""
    gone: set[int] = field(default_factory=set)
    """Ranks whose process has been seen to end."""
    stopped: bool = False
    """A rank was told to stop, and all have written what they could: no failure."""
    told_to_stop: bool = False
    restarts: bool = False
    """A rank's memory was full: the cell goes on in fresh processes, see `again`."""
    _freed: list[int] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing is to come."""
        return len(self.gone) == len(self.members)

    def handles(self) -> list[Any]:
        """Returns what to wait for."""
        found: list[Any] = [member.pipe for member in self.members if member.open]
        for rank, member in enumerate(self.members):
            if rank not in self.gone:
                found.append(member.process.sentinel)
        return found

    def events(self) -> Iterator[Event]:
        """Yields what has come of the cell since the last call."""
        # Looked at first: all that a process tells lies in its pipe when it has ended.
        dead = self._dead()
        yield from self._received()
        self._bury(dead)
        full = [fault for fault in self.faults if fault.kind == SmallerBudget.__name__]
        if full:
            self.stop()
            self.restarts = True
            yield Warned(self.state.cell.id, full[0].message, restarts=True)
        elif self.faults or (self.ended is not None and self.ended.elsewhere):
            yield self._failed()
        elif self.stopped and self.ended is None:
            if self.over:
                yield self._left()
        elif 0 in self.gone:  # the others have nothing left to do
            self.stop()
            yield self.ended or self._failed()

    def _left(self) -> CellEnded:
        """Returns what to tell of a cell that was told to stop by itself."""
        self.stop()
        folder = cell_folder(self.plan.settings.runs_dir, self.state.cell)
        told = "it was told to stop (SIGTERM); the same command goes on from its checkpoint"
        seconds = time.monotonic() - self.started
        return CellEnded(self.state.cell.id, str(folder), seconds, told)

    def again(self) -> CellGroup:
        """Starts the cell in fresh processes on the same devices; this group has ended."""
        fresh = start_group(self.state, [member.device for member in self.members], self.plan)
        fresh.started = self.started
        return fresh

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal to all processes that are left."""
        self.told_to_stop = self.told_to_stop or number == signal.SIGTERM
        for rank, member in enumerate(self.members):
            if rank not in self.gone and member.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.process.pid, number)

    def take_freed(self) -> list[int]:
        """Returns the devices that have become free since the last call."""
        freed, self._freed = self._freed, []
        return freed

    def _received(self) -> Iterator[Event]:
        for member in self.members:
            while member.open and member.pipe.poll():
                try:
                    told = member.pipe.recv()
                except (EOFError, OSError):
                    member.open = False
                    break
                if isinstance(told, RankFailed):
                    self.faults.append(told)
                elif isinstance(told, CellEnded):
                    self.ended = told
                else:
                    yield told

    def _dead(self) -> list[int]:
        return [
            rank
            for rank, member in enumerate(self.members)
            if rank not in self.gone and not member.process.is_alive()
        ]

    def _bury(self, dead: Sequence[int]) -> None:
        """Notes the ranks whose processes have ended, and why."""
        for rank in dead:
            self.gone.add(rank)
            self._freed.append(self.members[rank].device)
            code = self.members[rank].process.exitcode or 0
            told = any(fault.rank == rank for fault in self.faults)
            if code == STOPPED:
                self.stopped = True
            elif code != 0 and not told:
                self.faults.append(
                    RankFailed(rank, "TrainingError", _how_it_ended(code), False, time.monotonic())
                )

    def _failed(self) -> CellEnded:
        """Stops all, and records the first failure as the cell's."""
        until = time.monotonic() + GRACE_SECONDS
        while self.faults and not self.over and time.monotonic() < until:
            wait(self.handles(), timeout=max(0.0, until - time.monotonic()))
            dead = self._dead()
            for _ in self._received():
                pass  # steps of a training that has failed
            self._bury(dead)
        self.stop()
        folder = cell_folder(self.plan.settings.runs_dir, self.state.cell)
        seconds = time.monotonic() - self.started
        if not self.faults and self.ended is not None:
            return self.ended
        reason = self._reason(folder)
        record_failure(self.state.cell, folder, TrainingError(reason))
        return CellEnded(self.state.cell.id, str(folder), seconds, reason)

    def _reason(self, folder: Path) -> str:
        if not self.faults:
            return f"the worker processes ended without a result; see {folder / LOG_FILE}"
        first = min(self.faults, key=lambda fault: (fault.lost_others, fault.seconds))
        same = {fault.message for fault in self.faults} == {first.message}
        if first.lost_others:
            return (
                f"rank {first.rank} of {len(self.members)} waited for the others in vain "
                f"({first.message}); see {folder / LOG_FILE}"
            )
        if first.rank == 0 or (same and len(self.faults) > 1):
            return first.message
        return f"rank {first.rank} of {len(self.members)}: {first.message}"

    def stop(self, patience_seconds: float = 0.0) -> None:
        """Ends all processes that are left.

        Args:
            patience_seconds: how long they may take after SIGTERM, until SIGKILL; one that waits
                for another that is gone cannot heed the first.
        """
        until = time.monotonic() + patience_seconds
        if patience_seconds:
            if not self.told_to_stop:
                self.tell(signal.SIGTERM)
            while self.handles() and time.monotonic() < until:
                wait(self.handles(), timeout=0.5)
                dead = self._dead()
                for _ in self._received():
                    pass  # so that none waits for room in its pipe
                self._bury(dead)
                if self.faults:
                    break
        for rank, member in enumerate(self.members):
            if rank not in self.gone:
                self.gone.add(rank)
                self._freed.append(member.device)
            member.process.kill()
        for member in self.members:
            member.process.join(timeout=10)
            member.pipe.close()
            member.open = False
        shutil.rmtree(self.folder, ignore_errors=True)


def start_group(
    state: CellState,
    devices: Sequence[int],
    plan: RunPlan,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> CellGroup:
    """Starts one process per device for a cell.

    Args:
        state: the cell.
        devices: numbers in `plan.devices`.
        plan: where it runs.
        timeout_seconds: how long a process waits for the others.
    """
    context = multiprocessing.get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="zbench-group-"))
    members: list[_Member] = []
    # As in `local`: ctrl-C is held back, it is the parent that stops its workers.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        for rank, device in enumerate(devices):
            here, there = context.Pipe(duplex=False)
            member = RankInfo(rank, len(devices), str(folder / "store"), timeout_seconds)
            process = context.Process(
                target=take_part,
                args=(there, plan.devices[device], plan.settings, os.getpid(), state.cell, member),
                daemon=True,
            )
            process.start()
            there.close()
            members.append(_Member(process, here, device))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return CellGroup(state, plan, members, folder, time.monotonic())


def take_part(
    pipe: Connection,
    device: str,
    settings: RunSettings,
    parent: int,
    cell: Cell,
    member: RankInfo,
) -> None:
    """Runs one rank of a cell: the process' whole life."""
    prepare_worker(device, settings.threads, parent, member.environment)
    own = replace(settings, device="cuda" if device.startswith("cuda") else "cpu", rank_info=member)
    folder = cell_folder(settings.runs_dir, cell)
    lock = threading.Lock()

    def send(told: Event | RankFailed) -> None:
        try:
            with lock:
                pipe.send(told)
        except OSError:
            os._exit(1)  # nobody listens any more: the parent is gone, which is no failure

    def emit(event: Event) -> None:
        log_progress(event)
        # How it failed, the parent tells, which knows all ranks' reasons.
        failed = isinstance(event, CellEnded) and event.error is not None
        if not failed and not (isinstance(event, Warned) and event.restarts):
            send(event)

    try:
        log_to(folder / LOG_FILE, prefix=f"rank {member.rank}: ")
        if member.rank == 0:
            run_cell(cell, own, emit)
        else:
            follow_cell(cell, own)
            logging.shutdown()
            os._exit(0)  # done, whatever libraries do when they are taken down
    except CellBusy:
        send(CellEnded(cell.id, str(folder), 0.0, elsewhere=True))
    except Stopped:
        logging.shutdown()
        os._exit(STOPPED)
    except Exception as fault:
        logging.getLogger(__name__).exception("%s failed", cell.label)
        lost = lost_others(fault)
        send(RankFailed(member.rank, type(fault).__name__, describe(fault), lost, time.monotonic()))
        with contextlib.suppress(OSError):
            pipe.close()
        os._exit(1)  # torch's own farewell would wait for the others


def lost_others(fault: BaseException) -> bool:
    """Returns whether a fault says no more than that another process is gone or silent."""
    if type(fault).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError"):
        return True
    text = str(fault).lower()
    return isinstance(fault, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed by peer", "connection reset")
    )


def _how_it_ended(code: int) -> str:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"its process ended with {how}{hint}; run the same command again"
