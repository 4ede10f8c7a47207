"""Who runs a cell: a lock on a file in its folder, which names its holder.

The operating system unlocks it when its process dies. Only "it would block" means that another
process holds it: any other answer says nothing of it, and is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.errors import StorageError, UsageError, one_line
from harness.grid.shared_folder import file_system
from harness.records.process import is_alive, process_identity

LOCK_FILE = ".lock"
LOCK_ATTEMPTS, LOCK_RETRY_SECONDS = 20, 0.05  # is_running() briefly holds LOCK_SH
MAX_NAME = 1000
"""Characters of a holder's name that are read."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system answers that has no locks, or whose lock server is away."""


class CellBusy(StorageError):
    """Another process is running the cell."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a cell's folder for one process; the operating system unlocks it when that dies.

    Raises:
        CellBusy: another process holds the lock.
        StorageError: the folder cannot be written or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / LOCK_FILE
        if place.exists() and not place.is_file():
            raise StorageError(f"{place}: is no regular file; remove it, it only marks who runs")
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8", errors="replace")
    except OSError as fault:
        raise StorageError(
            f"{folder}: cannot be written ({fault.strerror}); choose another folder with --runs-dir"
        ) from fault
    with file:
        for _ in range(LOCK_ATTEMPTS):
            if held := _try_lock(file, fcntl.LOCK_EX):
                break
            time.sleep(LOCK_RETRY_SECONDS)
        if not held or _holder_lives(file):
            raise CellBusy(f"{folder}: {holder(folder)} is running this cell; wait for it")
        _name_holder(file, process_identity())
        try:
            yield
        finally:
            _name_holder(file, "")


def is_running(folder: Path) -> bool:
    """Whether it is locked; concurrent callers share LOCK_SH and do not block each other.

    Raises:
        StorageError: that cannot be found out.
    """
    path = folder / LOCK_FILE
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "no regular file")
        file = path.open(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be read ({one_line(fault.strerror or fault)}): nobody knows whether "
            "the cell runs; give yourself the right to read it, or move it away if none does"
        ) from fault
    with file:
        return not _try_lock(file, fcntl.LOCK_SH) or _holder_lives(file)


def holder(folder: Path) -> str:
    """Who holds a folder's lock, as far as it is known: `another process (4711 on node7)`."""
    host, *parts = holder_identity(folder).rsplit(":", 5)
    if len(parts) == 5:
        return one_line(f"another process ({parts[0]} on {host})")
    return "another process"


def holder_identity(folder: Path) -> str:
    """Who holds a folder's lock, as `records.process` names it; empty where nobody says so."""
    try:
        with (folder / LOCK_FILE).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_NAME).strip()
    except OSError:
        return ""


def check_locks(folder: Path) -> None:
    """Checks that files can be locked in a folder.

    Raises:
        UsageError: they cannot; the message names the file system.
    """
    try:
        with tempfile.NamedTemporaryFile("a+", dir=folder, prefix=".probe-", suffix=".lock") as one:
            _try_lock(one, fcntl.LOCK_EX)
    except StorageError as fault:
        raise UsageError(str(fault)) from fault


def _try_lock(file: IO[str], kind: int) -> bool:
    """Whether the lock was free; it is the file's until that is closed.

    Raises:
        StorageError: there is no answer.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as fault:
        folder = Path(file.name).parent
        said = f"{folder}: cannot be locked ({one_line(fault.strerror or fault)})"
        if fault.errno not in WITHOUT_LOCKS:
            raise StorageError(f"{said}; see that its disk is in order") from fault
        raise StorageError(
            f"{said}: {file_system(folder)} has no file locks, which keep two processes from one "
            "cell; mount it with them (Lustre: -o flock; NFS: with its lock server), or choose a "
            "folder on another disk with --runs-dir"
        ) from fault
    return True


def _holder_lives(file: IO[str]) -> bool:
    """Whether the holder that a lock names lives, though the lock was free.

    That is where one folder is seen through two mounts, which know nothing of each other's locks.
    """
    file.seek(0)
    identity = file.read(MAX_NAME).strip()
    return identity != process_identity() and is_alive(identity) is True


def _name_holder(file: IO[str], identity: str) -> None:
    """Writes who holds a lock; a full disk costs the name in a message, not the cell."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), identity.encode())
