"""Several commands of one runs folder log to MLflow in turn, so that none doubles the other's."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import TrackingError

logger = logging.getLogger(__name__)

LOCK_FILE = ".mlflow.lock"
PATIENCE_SECONDS = 300.0
RETRY_SECONDS = 0.05


@contextlib.contextmanager
def turn(runs_dir: Path, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Waits until no other process logs from this runs folder, and keeps others waiting.

    Where files cannot be locked that is told once, and the work goes on.

    Raises:
        TrackingError: another process took too long.
    """
    try:
        handle = os.open(runs_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # a folder that may only be read: nobody works in it
        yield
        return
    try:
        end = time.monotonic() + patience_seconds
        while not _locked(handle, runs_dir):
            if time.monotonic() > end:
                raise TrackingError(
                    f"{runs_dir / LOCK_FILE}: another process has been logging to MLflow from this "
                    f"folder for {patience_seconds:.0f} s; wait until it has ended"
                )
            time.sleep(RETRY_SECONDS)
        yield
    finally:
        os.close(handle)


def _locked(handle: int, runs_dir: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as fault:
        _warn(runs_dir, fault.strerror or str(fault))
    return True


@cache
def _warn(runs_dir: Path, reason: str) -> None:
    logger.warning(
        "warning: %s: files cannot be locked there (%s); run one command at a time",
        runs_dir,
        reason,
    )
