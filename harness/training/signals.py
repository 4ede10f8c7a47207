"""Signals that a training run handles between two steps, not in the middle of one.

SIGTERM and SIGINT (a scheduler's, ctrl-C): write a checkpoint and exit. SIGUSR1 (a scheduler's
warning, such as `sbatch --signal=USR1@120`): write a checkpoint and continue.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was told to stop, as a shell gives it."""
SAME_SECONDS = 2.0
"""Signals to stop that come within this time count as one."""


class Stopped(KeyboardInterrupt):
    """A cell was told to stop, and has written what it could; that is no failure."""


class Paused(Exception):  # noqa: N818 (no error: a training that waits for others)
    """A training has come as far as it was asked to, and has written its checkpoint."""


@dataclass
class SignalFlags:
    """What signals have asked for since the last step."""

    save: bool = False
    stop: bool = False
    pause: bool = False
    """Whether the training has come as far as it was asked to; of no signal."""
    deferred: bool = False
    """Whether the loop runs, which checks `stop` between steps; else a signal acts at once."""


@contextlib.contextmanager
def handle_signals() -> Iterator[SignalFlags]:
    """Sets flags on signals instead of dying of them; restores the earlier handlers afterwards.

    SIGTERM and SIGINT raise Stopped at once while nothing is `deferred`, and when they come again
    later than SAME_SECONDS: a scheduler tells every process, and the parent tells its workers too.
    A signal that the process ignores stays ignored, but for SIGUSR1. Outside of the main thread,
    which alone gets signals, nothing changes.
    """
    flags = SignalFlags()
    first: list[float] = []

    def stop(signum: int, frame: object) -> None:
        now = time.monotonic()
        first.append(now)
        again = flags.stop and now - first[0] > SAME_SECONDS
        if again or not flags.deferred:
            raise Stopped
        flags.stop = True

    def save(signum: int, frame: object) -> None:
        flags.save = True

    if threading.current_thread() is not threading.main_thread():
        yield flags
        return
    chosen = {signal.SIGUSR1: save}
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            chosen[number] = stop
    previous = {number: signal.signal(number, handler) for number, handler in chosen.items()}
    try:
        yield flags
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
