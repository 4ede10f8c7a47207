"""One worker process per device on this machine; each takes the next cell when it is free."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from harness.cell.memory import SmallerBudget
from harness.cell.run import describe, record_failure, run_cell
from harness.cell.settings import RunSettings
from harness.errors import TrainingError
from harness.execution.groups import CellGroup, start_group
from harness.execution.scheduling import Allotment
from harness.execution.worker import log_progress, log_to, prepare_worker
from harness.grid.folders import LOG_FILE, CellBusy, cell_folder
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.records.events import CellEnded, Emit, Event, Warned
from harness.training.signals import STOPPED, Stopped

if TYPE_CHECKING:
    from harness.execution.plan import RunPlan

STOP_SECONDS = 120.0
"""A worker that is told to stop has this long to finish its step and to write a checkpoint."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    busy: CellState | None = None
    started: float = 0.0


def run_local(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
    """Yields the events of the cells as they run; the workers are stopped when it is closed.

    A device has one worker, which takes one cell after the other; a cell of several devices has
    processes of its own. A worker that dies (killed, say) fails its cell and is replaced. One whose
    memory is full is replaced too, and its cell goes on in the fresh process. SIGUSR1 is passed on
    to all of them.
    """
    workers: dict[int, _Worker] = {}
    groups: list[CellGroup] = []
    with _passing_on(workers, groups):
        yield from _run(workers, groups, Allotment(states, len(plan.devices)), plan)


def _run(
    workers: dict[int, _Worker], groups: list[CellGroup], allotment: Allotment, plan: RunPlan
) -> Iterator[Event]:
    try:
        while True:
            while (turn := allotment.next()) is not None:
                _begin(*turn, workers, groups, plan)
            busy = {device: worker for device, worker in workers.items() if worker.busy}
            if not busy and not groups:
                return
            handles: list[Any] = [worker.pipe for worker in busy.values()]
            ready = wait([*handles, *(h for group in groups for h in group.handles())], timeout=5)
            for device, worker in busy.items():
                if worker.pipe not in ready:
                    continue
                try:
                    event: Event | None = worker.pipe.recv()
                except (EOFError, OSError):
                    event = None
                if event is None:
                    event = _bury(worker, plan)
                    _stop([workers.pop(device)])
                if isinstance(event, CellEnded):
                    worker.busy = None
                    allotment.give_back([device])
                elif isinstance(event, Warned) and event.restarts:
                    workers[device] = _replace(worker, plan)
                yield event
            for group in list(groups):
                yield from group.events()
                if group.restarts:
                    groups[groups.index(group)] = group.again()
                    continue
                allotment.give_back(group.take_freed())
                if group.over:
                    groups.remove(group)
    finally:
        for group in groups:
            group.tell(signal.SIGTERM)
        _stop(list(workers.values()))
        for group in groups:
            group.stop(patience_seconds=STOP_SECONDS)


@contextlib.contextmanager
def _passing_on(workers: dict[int, _Worker], groups: list[CellGroup]) -> Iterator[None]:
    """Passes SIGUSR1 on to the processes that have a cell."""

    def tell(signum: int, frame: object) -> None:
        for worker in workers.values():
            if worker.busy is not None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGUSR1)
        for group in groups:
            group.tell(signal.SIGUSR1)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGUSR1, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


def _begin(
    state: CellState,
    devices: tuple[int, ...],
    workers: dict[int, _Worker],
    groups: list[CellGroup],
    plan: RunPlan,
) -> None:
    """Hands a cell to its device's worker, or starts the processes that it needs."""
    if len(devices) == 1:
        (device,) = devices
        if device not in workers:
            workers[device] = _start_worker(plan.devices[device], plan)
        _give(workers[device], state)
        return
    for device in devices:
        if device in workers:  # idle, but its model is still in the device's memory
            _stop([workers.pop(device)])
    groups.append(start_group(state, devices, plan))


def _start_worker(device: str, plan: RunPlan) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=work, args=(there, device, plan.settings, os.getpid()), daemon=True
    )
    # A worker inherits that ctrl-C is held back: it is the parent that stops it. Held back, not
    # ignored, so that the parent gets it as soon as the worker is started. SIGUSR1 likewise, which
    # would kill a worker that is not ready for it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    there.close()
    return _Worker(process=process, pipe=here, device=device)


def _give(worker: _Worker, state: CellState) -> None:
    worker.busy = state
    worker.started = time.monotonic()
    with contextlib.suppress(BrokenPipeError, OSError):  # its death is read from the pipe
        worker.pipe.send(state.cell)


def _bury(worker: _Worker, plan: RunPlan) -> CellEnded:
    """Records the failure of a cell whose worker died."""
    assert worker.busy is not None
    worker.process.join(timeout=10)
    code = worker.process.exitcode
    if code == STOPPED:
        return _left(worker, plan)
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    folder = cell_folder(plan.settings.runs_dir, worker.busy.cell)
    fault = TrainingError(
        f"the worker process ended with {how}{hint}; see {folder / LOG_FILE}, "
        "then run the same command again"
    )
    record_failure(worker.busy.cell, folder, fault)
    state, worker.busy = worker.busy, None
    seconds = time.monotonic() - worker.started
    return CellEnded(state.cell.id, str(folder), seconds, str(fault))


def _left(worker: _Worker, plan: RunPlan) -> CellEnded:
    """Returns what to tell of a cell whose worker alone was told to stop; it has not failed."""
    assert worker.busy is not None
    state, worker.busy = worker.busy, None
    told = "its worker was told to stop (SIGTERM); the same command goes on from its checkpoint"
    folder = cell_folder(plan.settings.runs_dir, state.cell)
    return CellEnded(state.cell.id, str(folder), time.monotonic() - worker.started, told)


def _replace(worker: _Worker, plan: RunPlan) -> _Worker:
    """Gives a worker's cell to a fresh one, when its memory is free again."""
    assert worker.busy is not None
    worker.process.join(timeout=30)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()
    fresh = _start_worker(worker.device, plan)
    _give(fresh, worker.busy)
    fresh.started = worker.started
    return fresh


def _stop(workers: Sequence[_Worker]) -> None:
    """Lets idle workers leave by themselves, and busy ones after a checkpoint.

    A second interrupt, and STOP_SECONDS at the latest, end them at once.
    """
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        if worker.busy is None:
            worker.pipe.close()
        else:
            worker.process.terminate()
    try:
        for worker in workers:
            if worker.busy is None:
                worker.process.join(timeout=5)
            while worker.busy is not None and worker.process.is_alive():
                _read_away(worker)
                if time.monotonic() > deadline:
                    break
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join(timeout=5)
            worker.pipe.close()


def _read_away(worker: _Worker) -> None:
    """Keeps a worker that leaves from waiting for room in its pipe."""
    try:
        if worker.pipe.poll(0.1):
            worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(timeout=5)


def work(pipe: Connection, device: str, settings: RunSettings, parent: int) -> None:
    """Runs cells that come through the pipe until it closes: the worker process's whole life."""
    prepare_worker(device, settings.threads, parent)
    own = replace(settings, device="cuda" if device.startswith("cuda") else "cpu")
    lock = threading.Lock()

    def emit(event: Event) -> None:
        try:
            with lock:
                pipe.send(event)
        except OSError:
            os._exit(1)  # nobody listens any more: the parent is gone, which is no failure

    while True:
        try:
            cell: Cell = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            _attempt(cell, own, emit)
        except SmallerBudget:
            return  # told already; the cell goes on in a fresh process
        except Stopped:
            sys.exit(STOPPED)


def _attempt(cell: Cell, settings: RunSettings, emit: Emit) -> None:
    folder = cell_folder(settings.runs_dir, cell)
    start = time.monotonic()
    ended = False

    def relay(event: Event) -> None:
        nonlocal ended
        log_progress(event)
        ended = ended or isinstance(event, CellEnded)
        emit(event)

    try:
        log_to(folder / LOG_FILE)
        run_cell(cell, settings, relay)
    except CellBusy:
        emit(CellEnded(cell.id, str(folder), time.monotonic() - start, elsewhere=True))
    except SmallerBudget as fault:
        logging.getLogger(__name__).warning("%s: %s", cell.label, fault)
        raise
    except Exception as fault:
        logging.getLogger(__name__).exception("%s failed", cell.label)
        if not ended:  # a fault outside the cell's own work: its folder, an import
            record_failure(cell, folder, fault)
            emit(CellEnded(cell.id, str(folder), time.monotonic() - start, describe(fault)))
