"""What every worker process does with itself: its environment, its signals, its log."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from harness.errors import StorageError
from harness.execution.devices import cuda_visible
from harness.records.events import Event, Scoring, StepDone, Warned


def prepare_worker(
    device: str, threads: int, parent: int, environment: Mapping[str, str] | None = None
) -> None:
    """Makes this process a worker: silent, on one device, and gone when its parent is.

    Args:
        device: the only one that it sees, `cpu` or `cuda:0`, ...
        threads: of the CPU.
        parent: the process that started it.
        environment: more for the libraries that it will import.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # but for a training, which heeds it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _be_silent()
    _set_environment(device, threads)
    os.environ.update(environment or {})
    _use_thread_locks()


def log_progress(event: Event) -> None:
    """Leaves a line in the cell's log every 50 steps and at each tenth of a benchmark."""
    logger = logging.getLogger("zbench")
    if isinstance(event, StepDone) and event.step % 50 == 0 and not event.restored:
        logger.info("step %d: loss %.4f, %.0f tokens/s", event.step, event.loss,
                    event.tokens_per_second)  # fmt: skip
    elif isinstance(event, Warned):
        logger.warning("%s", event.message)
    elif isinstance(event, Scoring) and event.done % max(1, event.total // 10) == 0:
        logger.info("%s: %d of %d requests", event.benchmark, event.done, event.total)


def log_to(path: Path, prefix: str = "") -> None:
    """Sends all that this process prints, C libraries included, to the cell's log.

    Args:
        path: of the log; what it has is kept.
        prefix: before every line of logging.

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
        format=f"{prefix}%(asctime)s %(levelname)s %(name)s: %(message)s",
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
