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
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell import RunSettings, describe, record_failure, run_cell
from harness.errors import StorageError, TrainingError
from harness.events import CellEnded, Emit, Event, Scoring, StepDone, Warned
from harness.executors.devices import cuda_visible
from harness.grid import Cell
from harness.interrupts import STOPPED, Stopped
from harness.memory import SmallerBudget
from harness.state import LOG_FILE, CellBusy, CellState, cell_folder

if TYPE_CHECKING:
    from harness.executors import RunPlan

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

    A worker that dies (killed, say) fails its cell and is replaced. One whose memory is full is
    replaced too, and its cell goes on in the fresh process. SIGUSR1 is passed on to all of them.
    """
    queue = deque(states)
    devices = plan.devices[: len(queue)]
    workers: list[_Worker] = []
    with _passing_on(workers):
        yield from _run(workers, devices, queue, plan)


def _run(
    workers: list[_Worker], devices: Sequence[str], queue: deque[CellState], plan: RunPlan
) -> Iterator[Event]:
    try:
        workers += [_start_worker(device, plan) for device in devices]
        for worker in workers:
            _give_next(worker, queue)
        while any(worker.busy for worker in workers):
            ready = wait([worker.pipe for worker in workers if worker.busy], timeout=5)
            for worker in [worker for worker in workers if worker.pipe in ready]:
                try:
                    event: Event | None = worker.pipe.recv()
                except (EOFError, OSError):
                    event = None
                if event is None:
                    yield _bury(worker, plan)
                    if queue:
                        replacement = _start_worker(worker.device, plan)
                        workers[workers.index(worker)] = replacement
                        _give_next(replacement, queue)
                    continue
                if isinstance(event, CellEnded):
                    worker.busy = None
                    _give_next(worker, queue)
                elif isinstance(event, Warned) and event.restarts:
                    workers[workers.index(worker)] = _replace(worker, plan)
                yield event
    finally:
        _stop(workers)


@contextlib.contextmanager
def _passing_on(workers: list[_Worker]) -> Iterator[None]:
    """Passes SIGUSR1 on to the workers that have a cell."""

    def tell(signum: int, frame: object) -> None:
        for worker in workers:
            if worker.busy is not None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGUSR1)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGUSR1, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


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


def _give_next(worker: _Worker, queue: deque[CellState]) -> None:
    if queue:
        worker.busy = queue.popleft()
        worker.started = time.monotonic()
        with contextlib.suppress(BrokenPipeError, OSError):  # its death is read from the pipe
            worker.pipe.send(worker.busy.cell)


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
    _give_next(fresh, deque([worker.busy]))
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # but for a training, which heeds it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _be_silent()
    _set_environment(device, settings.threads)
    _use_thread_locks()
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
        _log_progress(event)
        ended = ended or isinstance(event, CellEnded)
        emit(event)

    try:
        _log_to(folder / LOG_FILE)
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


def _log_progress(event: Event) -> None:
    """Leaves a line in the cell's log every 50 steps and at each tenth of a benchmark."""
    logger = logging.getLogger("zbench")
    if isinstance(event, StepDone) and event.step % 50 == 0 and not event.restored:
        logger.info("step %d: loss %.4f, %.0f tokens/s", event.step, event.loss,
                    event.tokens_per_second)  # fmt: skip
    elif isinstance(event, Warned):
        logger.warning("%s", event.message)
    elif isinstance(event, Scoring) and event.done % max(1, event.total // 10) == 0:
        logger.info("%s: %d of %d requests", event.benchmark, event.done, event.total)


def _log_to(path: Path) -> None:
    """Sends all that this process prints, C libraries included, to the cell's log.

    Raises:
        StorageError: the log cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )


def _be_silent() -> None:
    """Keeps the terminal clean until there is a cell with a log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _set_environment(device: str, threads: int) -> None:
    """Sets what libraries read when they are imported; the worker owns its process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = cuda_visible(device) if device != "cpu" else ""


def _use_thread_locks() -> None:
    """Keeps tqdm from making a semaphore that a stopped worker would leave behind."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
