"""Who runs a cell: a lock on a file in its folder, and in the file the lease of its holder.

The operating system unlocks it when its process dies. Where a lock is not seen, or there are none,
the lease alone says who runs the cell (`harness.grid.lease`). Only "it would block" means that
another process holds the lock: any other answer says nothing of it, and is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import StorageError, UsageError, one_line
from harness.grid.lease import (
    BEATS,
    LOCK_FILE,
    CellBusy,
    Lease,
    holder_of,
    lease_seconds,
    lives,
    read_holder,
    take,
)
from harness.grid.shared_folder import file_system, forget_reach, keep_reach, lock_reach
from harness.records.files import guarded_writes
from harness.records.process import is_alive

LOCK_ATTEMPTS, LOCK_RETRY_SECONDS = 20, 0.05  # is_running() briefly holds LOCK_SH
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system answers that has no locks, or whose lock server is away."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """Holds a cell's folder for one process, until the block ends or the process dies.

    A process that was taken over meanwhile (it was suspended, or cut off) writes no file there any
    more (`records.files`); `Lease.lost` tells.

    Raises:
        CellBusy: another process holds it.
        StorageError: the folder cannot be written or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / LOCK_FILE
        if place.exists() and not place.is_file():
            raise StorageError(f"{place}: is no regular file; remove it, it only marks who runs")
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as fault:
        raise StorageError(
            f"{folder}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    try:
        for _ in range(LOCK_ATTEMPTS):
            if (locks := _try_lock(handle, folder, fcntl.LOCK_EX)) != "held":
                break
            time.sleep(LOCK_RETRY_SECONDS)
        alone = locks == "free" and _reaches_all(folder)
        before = read_holder(handle)
        if locks == "held" or lives(folder, handle, before, seen=alone):
            raise CellBusy(f"{folder}: {holder(folder)} is running this cell; wait for it")
        lease = take(folder, handle, before, alone=alone)
        try:
            with lease, guarded_writes(folder, lease.check):
                yield lease
        finally:
            lease.give_back(handle)
    finally:
        os.close(handle)


def is_running(folder: Path) -> bool:
    """Whether it is held; concurrent callers share LOCK_SH and do not block each other.

    Raises:
        StorageError: that cannot be found out.
    """
    handle = _open(folder)
    if handle is None:
        return False
    try:
        locks = _try_lock(handle, folder, fcntl.LOCK_SH)
        if locks == "held":
            return True
        found = read_holder(handle)
        if not found.identity:
            return False
        return lives(folder, handle, found, seen=locks == "free" and _reaches_all(folder))
    finally:
        os.close(handle)


def _open(folder: Path) -> int | None:
    """The lock file, to be read; None where there is none.

    Raises:
        StorageError: it cannot be read.
    """
    path = folder / LOCK_FILE
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "no regular file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be read ({one_line(fault.strerror or fault)}): nobody knows whether "
            "the cell runs; give yourself the right to read it, or move it away if none does"
        ) from fault


def holder(folder: Path) -> str:
    """Who holds a folder's lock, as far as it is known: `another process (4711 on node7)`."""
    host, *parts = holder_identity(folder).rsplit(":", 5)
    if len(parts) == 5:
        return one_line(f"another process ({parts[0]} on {host})")
    return "another process"


def holder_identity(folder: Path) -> str:
    """Who holds a folder's lock, as `records.process` names it; empty where nobody says so."""
    return holder_of(folder).identity


def any_silent(folders: Sequence[Path]) -> bool:
    """Whether the holder of a cell that seems to run has gone; waited for until it is known.

    On this machine, and where locks are seen, that is known at once. Of a holder elsewhere a
    heartbeat is waited for; one that gives none has gone once its lease is over. A clock of a file
    server that was set back keeps a lease alive: that is not waited for.
    """
    beats = {folder: _beat_of(folder) for folder in folders if _only_leased(folder)}
    pause = min(1.0, lease_seconds() / BEATS / 4)
    longest = max([lease_seconds(), *(holder_of(folder).seconds for folder in beats)])
    end = time.monotonic() + 1.5 * longest
    silent = False
    while beats and time.monotonic() < end:
        time.sleep(pause)
        for folder, beat in list(beats.items()):
            runs = is_running(folder)
            silent = silent or not runs
            if not runs or _beat_of(folder) != beat:
                del beats[folder]
    return silent


def _only_leased(folder: Path) -> bool:
    """Whether a cell is held by a lease alone, of a process of which nothing else is known."""
    if is_alive(holder_identity(folder)) is not None or (handle := _open(folder)) is None:
        return False
    try:
        locks = _try_lock(handle, folder, fcntl.LOCK_SH)
        return locks == "none" or (locks == "free" and not _reaches_all(folder))
    finally:
        os.close(handle)


def _beat_of(folder: Path) -> int | None:
    try:
        with (folder / LOCK_FILE).open("rb") as file:  # opened: a network's cache is renewed
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def check_locks(folder: Path) -> str | None:
    """Finds out whether files can be locked in the folder of the cells, and keeps it.

    Returns:
        What there is to know of a file system without locks, in one line.

    Raises:
        UsageError: it gives no answer.
    """
    runs_dir, seconds = folder.parent, lease_seconds()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as one:
            locks = _try_lock(one.fileno(), folder, fcntl.LOCK_EX)
    except StorageError as fault:
        raise UsageError(str(fault)) from fault
    if locks != "none":
        if lock_reach(runs_dir) == "none":  # mounted otherwise since
            forget_reach(runs_dir)
        return None
    keep_reach(runs_dir, "none")
    return (
        f"{folder}: {file_system(folder)} has no file locks: each cell is guarded by a lease, and "
        f"what a process on another machine leaves is taken up after {seconds:g} s of "
        "silence"
    )


def _reaches_all(folder: Path) -> bool:
    """Whether a lock on a cell's folder is seen by every process, on whatever machine."""
    return lock_reach(folder.absolute().parent.parent) == "machines"


def _try_lock(handle: int, folder: Path, kind: int) -> str:
    """Whether the lock was `free` (it is the file's until that is closed), `held`; `none` exist.

    Raises:
        StorageError: there is no answer.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError as fault:
        if fault.errno in WITHOUT_LOCKS:
            return "none"
        raise StorageError(
            f"{folder}: cannot be locked ({one_line(fault.strerror or fault)}); see that its disk "
            "is in order"
        ) from fault
    return "free"
