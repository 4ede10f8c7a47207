"""The executor of one machine: a worker process per device, which takes the next cell when free."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait

from harness.execution.devices import device_notes, resolve_devices, worker_threads
from harness.execution.gpu_check import check_gpus
from harness.execution.groups import CellGroup, Worker, retire
from harness.execution.plan import RunPlan
from harness.execution.scheduling import Allotment, check_gpus_per_cell, devices_needed
from harness.grid.status import CellState
from harness.records.event_file import EventFiles
from harness.records.events import Event

STOP_SECONDS = 120.0
"""A worker that gets SIGTERM has this long to finish its step and to write a checkpoint."""


class LocalExecutor:
    """Runs cells on this machine."""

    def prepare(self, states: Sequence[CellState], plan: RunPlan) -> RunPlan:
        """Finds the devices; see `Executor.prepare`."""
        place = plan.place
        wanted = sum(map(devices_needed, states))
        devices = resolve_devices(place.device, workers=place.workers, num_cells=wanted)
        check_gpus_per_cell(states, len(devices), f"--device {place.device}")
        if states:
            check_gpus(devices, states)
        return replace(
            plan,
            devices=devices,
            settings=replace(plan.settings, threads=worker_threads(devices, place.workers)),
            notes=(*plan.notes, *device_notes(devices, place.device)),
        )

    def describe(self, plan: RunPlan) -> str:
        """The number of devices and their kind."""
        return f"{len(plan.devices)} × {plan.devices[0].split(':')[0]}"

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        """Runs the cells in a worker process per device; keeps their events in their folders."""
        folders = {state.cell.id: state.folder for state in states}
        with EventFiles(folders) as files, contextlib.closing(run_local(states, plan)) as events:
            for event in events:
                files.write(event)
                yield event


def run_local(states: Sequence[CellState], plan: RunPlan) -> Generator[Event]:
    """Runs the cells, as every executor does (see `harness.execution.executor.Executor`).

    A device has one worker, which takes one cell after the other; a cell of several devices has
    processes of its own. A worker that dies (killed, say) fails its cell and is replaced. One that
    is out of memory is replaced too, and its cell resumes in the fresh process. SIGUSR1 is
    forwarded to every process that has a cell.
    """
    allotment = Allotment(states, len(plan.devices))
    idle: dict[int, Worker] = {}
    running: list[CellGroup] = []
    with _forwarded(signal.SIGUSR1, running):
        try:
            while True:
                while (turn := allotment.next()) is not None:
                    state, devices = turn
                    known = [idle.pop(device) for device in devices if device in idle]
                    running.append(CellGroup(state, devices, plan, idle=known))
                if not running:
                    return
                wait([handle for group in running for handle in group.handles()], timeout=5)
                for group in list(running):
                    yield from group.events()
                    allotment.give_back(group.take_freed())
                    if group.over:
                        running.remove(group)
                        left = [worker for worker in group.workers if not worker.exited]
                        idle |= {worker.device: worker for worker in left}
        finally:
            _stop(running, list(idle.values()))


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


def _stop(running: Sequence[CellGroup], idle: Sequence[Worker]) -> None:
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
        retire(idle)
