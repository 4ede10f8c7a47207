"""The executor of one machine: a worker process per device, which takes the next cell when free."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from harness.execution.groups import CellGroup, Worker, retire, start_group
from harness.execution.plan import RunPlan
from harness.execution.scheduling import Allotment
from harness.grid.status import CellState
from harness.records.events import Event

STOP_SECONDS = 120.0
"""A worker that gets SIGTERM has this long to finish its step and to write a checkpoint."""


def run_local(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
    """Runs the cells, as every executor does (see `harness.execution.run_grid.Executor`).

    A device has one worker, which takes one cell after the other; a cell of several devices has
    processes of its own. A worker that dies (killed, say) fails its cell and is replaced. One that
    is out of memory is replaced too, and its cell resumes in the fresh process. SIGUSR1 is
    forwarded to every process that has a cell.
    """
    allotment = Allotment(states, len(plan.devices))
    workers: dict[int, Worker] = {}
    running: list[CellGroup] = []
    with _forwarded(signal.SIGUSR1, running):
        try:
            while True:
                while (turn := allotment.next()) is not None:
                    _start(*turn, workers, running, plan)
                if not running:
                    return
                wait([handle for group in running for handle in group.handles()], timeout=5)
                for group in list(running):
                    yield from group.events()
                    if group.restarts:
                        running[running.index(group)] = fresh = group.restart()
                        _keep(fresh, workers)
                        continue
                    allotment.give_back(group.take_freed())
                    if group.over:
                        running.remove(group)
        finally:
            _stop(running, list(workers.values()))


def _start(
    state: CellState,
    devices: tuple[int, ...],
    workers: dict[int, Worker],
    running: list[CellGroup],
    plan: RunPlan,
) -> None:
    """Hands a cell to its device's worker, or starts the processes that it needs."""
    known = [worker for device in devices if (worker := workers.get(device)) is not None]
    idle = [worker for worker in known if not worker.exited]
    if len(devices) > 1:
        retire(idle)  # their models are still in the devices' memory
        idle = []
    group = start_group(state, devices, plan, idle=idle[0] if idle else None)
    running.append(group)
    _keep(group, workers)


def _keep(group: CellGroup, workers: dict[int, Worker]) -> None:
    """Keeps a worker that can take another cell after this one."""
    if len(group.workers) == 1:
        workers[group.workers[0].device] = group.workers[0]


@contextlib.contextmanager
def _forwarded(number: signal.Signals, groups: Sequence[CellGroup]) -> Iterator[None]:
    """Forwards a signal to the groups; only the main thread can."""

    def forward(signum: int, frame: object) -> None:
        for group in groups:
            group.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, forward)
    try:
        yield
    finally:
        signal.signal(number, previous)


def _stop(running: Sequence[CellGroup], workers: Sequence[Worker]) -> None:
    """Lets busy workers leave after a checkpoint, and idle ones at once.

    A second interrupt, and STOP_SECONDS at the latest, kills them.
    """
    deadline = time.monotonic() + STOP_SECONDS
    try:
        for group in running:
            group.send_signal(signal.SIGTERM)
        for group in running:
            group.drain(deadline)
    finally:
        for group in running:
            group.stop()
        retire([worker for worker in workers if not worker.exited])
