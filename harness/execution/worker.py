"""A worker process: its environment, its signals, its log, and the cells that it runs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from harness.cell.memory import SmallerBudget
from harness.cell.run import describe, follow_cell, record_failure, run_cell
from harness.cell.settings import RunSettings
from harness.errors import StorageError, mask_secrets
from harness.execution.devices import environment_of
from harness.grid.folders import LOG_FILE, cell_folder
from harness.grid.locks import CellBusy
from harness.grid.schema import Cell
from harness.records.events import (
    CellEnded,
    Encoding,
    EpochValidated,
    Event,
    Scoring,
    StepDone,
    Warned,
)
from harness.terminal import print_in_any_encoding
from harness.training.signals import STOPPED, Paused, Stopped

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class RankFailed:
    """The last message of a process that exits because of a fault."""

    rank: int
    kind: str
    """Type of the fault."""
    message: str
    lost_others: bool
    """Only another rank's exit or silence made it fail."""
    seconds: float
    """Time on the machine's monotonic clock."""


def work(pipe: Connection, device: str, settings: RunSettings, parent: int) -> None:
    """Runs the cells that come through the pipe until it closes: the process's whole life.

    Events go back through the pipe. A process that is one of several ranks exits with its cell.
    """
    ranks = settings.rank_info
    environment = ranks.environment if ranks.world_size > 1 else {}
    prepare_worker(device, settings.threads, parent, environment)
    own = replace(settings, device="cuda" if device.startswith("cuda") else "cpu")
    lock = threading.Lock()

    def send(message: Event | RankFailed) -> None:
        try:
            with lock:
                pipe.send(message)
        except OSError:
            os._exit(1)  # the parent has exited, which is no failure of the cell

    while True:
        try:
            cell: Cell = pipe.recv()
        except (EOFError, OSError):
            return
        code = _run(cell, own, send)
        if code is not None:
            logging.shutdown()
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)  # torch's own teardown would wait for the other ranks


def _run(
    cell: Cell, settings: RunSettings, send: Callable[[Event | RankFailed], None]
) -> int | None:
    """Runs a cell; returns the code to exit with, or None to take another cell."""
    rank, several = settings.rank_info.rank, settings.rank_info.world_size > 1
    folder = cell_folder(settings.runs_dir, cell)
    start = time.monotonic()
    ended = False

    def emit(event: Event) -> None:
        nonlocal ended
        log_progress(event)
        ended = ended or isinstance(event, CellEnded)
        # Why a cell of several ranks failed, the parent decides, which knows the reason of each.
        failed = isinstance(event, CellEnded) and event.error is not None and several
        if not failed and not (isinstance(event, Warned) and event.restarts):
            send(event)

    def fail(fault: Exception) -> int:
        kind = type(fault).__name__
        send(RankFailed(rank, kind, describe(fault), lost_others(fault), time.monotonic()))
        return 1

    try:
        log_to(folder / LOG_FILE, prefix=f"rank {rank}: " if several else "")
        if rank == 0:
            run_cell(cell, settings, emit)
        else:
            follow_cell(cell, settings)
    except CellBusy:
        send(CellEnded(cell.id, str(folder), time.monotonic() - start, elsewhere=True))
    except Paused:
        pass  # told; the worker takes another cell
    except Stopped:
        return STOPPED
    except SmallerBudget as fault:
        logging.getLogger(__name__).warning("%s: %s", cell.label, fault)
        return fail(fault)
    except Exception as fault:  # a cell's failure, of any kind, does not end its worker
        logging.getLogger(__name__).exception("%s failed", cell.label)
        if several:
            return fail(fault)
        if not ended:  # a fault outside of the cell's own work: its folder, an import
            record_failure(cell, folder, fault)
            send(CellEnded(cell.id, str(folder), time.monotonic() - start, describe(fault)))
    return 0 if several else None


def lost_others(fault: BaseException) -> bool:
    """Whether a fault says no more than that another rank has exited or is silent."""
    if type(fault).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError"):
        return True
    text = str(fault).lower()
    return isinstance(fault, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed by peer", "connection reset")
    )


def prepare_worker(
    device: str, threads: int, parent: int, environment: Mapping[str, str] | None = None
) -> None:
    """Makes this process a worker: silent, on one device, and ended with its parent.

    Args:
        device: the only one that it sees, `cpu` or `cuda:0`, ...
        threads: CPU threads.
        parent: process id.
        environment: variables for the libraries that it will import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a training handles it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    print_in_any_encoding()  # a log too
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    _redirect_output(Path(os.devnull))  # the terminal stays clean until a cell has a log
    sys.stdout, sys.stderr = MaskedText(1), MaskedText(2)
    # What libraries read when they are imported.
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        **environment_of(device),
    }
    os.environ |= environment or {}
    from tqdm import tqdm

    # Its default lock is a semaphore, which a stopped worker would leave behind.
    tqdm.set_lock(threading.RLock())


def log_progress(event: Event) -> None:
    """Logs a line every 50 steps and at each tenth of a benchmark."""
    logger = logging.getLogger("zbench")
    if isinstance(event, StepDone) and event.step % 50 == 0 and not event.restored:
        logger.info("step %d: loss %.4f, %.0f tokens/s", event.step, event.loss,
                    event.tokens_per_second)  # fmt: skip
    elif isinstance(event, EpochValidated) and not event.restored:
        logger.info("epoch %d: validation loss %.4f", event.epoch, event.loss)
    elif isinstance(event, Warned):
        logger.warning("%s", event.message)
    elif isinstance(event, Scoring) and event.done % max(1, event.total // 10) == 0:
        logger.info("%s: %d of %d requests", event.benchmark, event.done, event.total)
    elif isinstance(event, Encoding):
        logger.info("%d of %d pictures encoded", event.done, event.total)


class MaskedText(io.TextIOWrapper):
    """A stream on a file descriptor, for a log that others read: no password or token passes."""

    def __init__(self, descriptor: int) -> None:
        file = open(descriptor, "wb", closefd=False)  # noqa: SIM115 (open as long as the process)
        super().__init__(file, encoding="utf-8", errors="backslashreplace", line_buffering=True)

    def write(self, text: str, /) -> int:
        super().write(mask_secrets(text))
        return len(text)


def log_to(path: Path, prefix: str = "") -> None:
    """Appends all that this process prints, C libraries included, to the cell's log.

    Raises:
        StorageError: the log cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _redirect_output(path)
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"{prefix}{LOG_FORMAT}",
        force=True,
    )


@contextlib.contextmanager
def logging_beside_the_screen(path: Path) -> Iterator[None]:
    """Appends what is logged to the cell's log too; warnings stay on the screen.

    A traceback is the log's alone: what fails a cell is told in one line, by its event.
    The file is opened with the first line: a cell that another process runs keeps its own.

    Raises:
        StorageError: the cell's folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    screen, file = logging.StreamHandler(), _LogFile(path, delay=True, encoding="utf-8")
    screen.setLevel(logging.WARNING)
    screen.addFilter(lambda record: not record.exc_info)
    screen.setFormatter(_MaskedFormatter())
    file.setFormatter(_MaskedFormatter(LOG_FORMAT))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [file] if root.handlers else [screen, file]
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
        root.setLevel(level)
        with contextlib.suppress(OSError):  # what a full disk did not take is written once more
            file.close()


class _MaskedFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(super().format(record))


class _LogFile(logging.FileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        """Opens the file with the first line."""
        try:
            super().emit(record)
        except OSError:  # of the opening
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, logging's own name
        """A full disk costs lines of the log, not the cell."""


def _redirect_output(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _exit_with(parent: int) -> None:
    """Ends this process once its parent has exited, for whatever reason."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
