"""One worker process per device on this machine; each takes the next cell when it is free."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from harness.cell import RunSettings, describe, record_failure, run_cell
from harness.errors import TrainingError
from harness.events import CellEnded, Emit, Event
from harness.executors.allotment import Allotment
from harness.executors.groups import CellGroup, start_group
from harness.executors.worker import log_progress, log_to, prepare_worker
from harness.grid import Cell
from harness.state import LOG_FILE, CellBusy, CellState, cell_folder

if TYPE_CHECKING:
    from harness.executors import RunPlan


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
    processes of its own. A worker that dies (killed, out of memory) fails its cell and is replaced.
    """
    allotment = Allotment(states, len(plan.devices))
    workers: dict[int, _Worker] = {}
    groups: list[CellGroup] = []
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
                    _stop(workers.pop(device))
                if isinstance(event, CellEnded):
                    worker.busy = None
                    allotment.give_back([device])
                yield event
            for group in groups:
                yield from group.events()
                allotment.give_back(group.take_freed())
            groups = [group for group in groups if not group.over]
    finally:
        for worker in workers.values():
            _stop(worker)
        for group in groups:
            group.stop(patience_seconds=5)


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
            _stop(workers.pop(device))
    groups.append(start_group(state, devices, plan))


def _start_worker(device: str, plan: RunPlan) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=work, args=(there, device, plan.settings, os.getpid()), daemon=True
    )
    # A worker inherits that ctrl-C is held back: it is the parent that stops it. Held back, not
    # ignored, so that the parent gets it as soon as the worker is started.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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


def _stop(worker: _Worker) -> None:
    """Lets an idle worker leave by itself and stops a busy one."""
    worker.pipe.close()
    if worker.busy is None:
        worker.process.join(timeout=5)
    worker.process.terminate()
    worker.process.join(timeout=5)
    if worker.process.is_alive():
        worker.process.kill()
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
        _attempt(cell, own, emit)


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
    except Exception as fault:
        logging.getLogger(__name__).exception("%s failed", cell.label)
        if not ended:  # a fault outside the cell's own work: its folder, an import
            record_failure(cell, folder, fault)
            emit(CellEnded(cell.id, str(folder), time.monotonic() - start, describe(fault)))
