"""The lease beside a cell's lock: who holds the cell, for as long as its heartbeat is seen.

A file lock may be of one machine alone, or there are none; and who holds one is not to be seen in
it. So the lock file names its holder, which touches it every few seconds. Whether a holder lives is
known on its own machine by its process, and elsewhere by the age of its heartbeat, on the clock of
the file server. A cell is taken over by creating a file that can be created once (`O_EXCL`): one
for each number of a holder, so that of several takers one wins. Who was taken over (its machine was
suspended, or cut off) finds another number in the lock file, and writes nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StorageError, UsageError, one_line
from harness.records.files import unwritable
from harness.records.process import is_alive, process_identity

LOCK_FILE = ".lock"
CLAIM = ".lease-"
LEASE_SECONDS = 90.0
"""A holder on another machine that was silent for so long has gone."""
LEASE_VARIABLE = "ZBENCH_LEASE_SECONDS"
BEATS = 6
"""Heartbeats in a lease: some may be late."""
RECORD_BYTES = 512
"""A holder's record has one length, so that it is written in one piece."""


class CellBusy(StorageError):
    """Another process is running the cell."""


def lease_seconds() -> float:
    """How long a holder may be silent.

    Raises:
        UsageError: the environment says so, but no number of seconds.
    """
    text = os.environ.get(LEASE_VARIABLE, str(LEASE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= 86400:
        raise UsageError(f"{LEASE_VARIABLE}={one_line(text)[:60]}: is no number from 1 to 86400")
    return seconds


@dataclass(frozen=True)
class Holder:
    """What a lock file says."""

    identity: str = ""
    """Of its process (`records.process`); empty where nobody holds it."""
    number: int = 0
    """Of its holders so far."""
    seconds: float = 0.0
    """How long it may be silent; 0 for an older version's, which has no heartbeat."""

    @property
    def content(self) -> bytes:
        """The record of it, always of one length."""
        text = f"{self.identity}\n{self.number}\n{self.seconds:g}\n"
        return text.encode().ljust(RECORD_BYTES, b"\n")


def read_holder(handle: int) -> Holder:
    """Who an open lock file names; nobody where it cannot be read."""
    try:
        text = os.pread(handle, 2 * RECORD_BYTES, 0).decode(errors="replace")
    except OSError:
        return Holder()
    identity, *rest = text.splitlines() or [""]
    try:
        return Holder(identity.strip(), int(rest[0]), float(rest[1]))
    except (IndexError, ValueError):
        return Holder(identity.strip())


def holder_of(folder: Path) -> Holder:
    """Who the lock file of a cell's folder names, read anew; nobody where there is none."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Holder()
    try:
        return read_holder(handle)
    finally:
        os.close(handle)


_held: list[Lease] = []
"""The leases of this process."""


def lives(folder: Path, handle: int, holder: Holder, *, seen: bool) -> bool:
    """Whether the holder that a lock file names has the cell, though its lock was free.

    Args:
        handle: the open lock file.
        seen: whether a lock of it would have been seen, on whatever machine it is.
    """
    if not holder.identity:
        return False
    if holder.identity == process_identity():  # perhaps through another mount
        return any((lease.folder.name, lease.holder) == (folder.name, holder) for lease in _held)
    alive = is_alive(holder.identity)
    if alive is not None:
        return alive
    return not seen and silent_seconds(folder, handle) < holder.seconds


def silent_seconds(folder: Path, handle: int) -> float:
    """The age of the last heartbeat, on the file server's clock where it can be asked."""
    beat = os.fstat(handle).st_mtime
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{LOCK_FILE}.") as clock:
            return os.fstat(clock.fileno()).st_mtime - beat
    except OSError:  # a folder that may only be read
        return time.time() - beat


def take(folder: Path, handle: int, before: Holder, *, alone: bool) -> Lease:
    """Takes a cell that nobody holds.

    The claim, a file of the next number, stays as long as the cell is held: a process that sees
    what the lock file said a moment ago (a network's cache) meets it.

    Args:
        handle: its open lock file.
        before: who it names, who has gone.
        alone: whether a lock that is held keeps out every other process, on whatever machine.

    Raises:
        CellBusy: another process was faster.
        StorageError: the folder cannot be written.
    """
    claim = _claim(folder, before.number + 1, alone)
    lease = Lease(folder, claim, Holder(process_identity(), _number(claim), lease_seconds()))
    try:
        others = [path for path in folder.glob(f"{CLAIM}*") if path != claim]
        later = [path for path in others if _number(path) > before.number]
        if any(not _is_left(path, alone) for path in later):
            raise CellBusy(f"{folder}: another process takes this cell now")
        try:
            os.pwrite(handle, lease.holder.content, 0)
            os.fsync(handle)
        except OSError as fault:
            if not alone:
                raise unwritable(folder / LOCK_FILE, fault) from fault
            lease.named = False  # a full disk costs the name, not the cell
    except StorageError:
        _remove([claim])
        raise
    _remove(others)
    return lease


def _claim(folder: Path, number: int, alone: bool) -> Path:
    """Creates the first claim from a number on that is not another process's."""
    while True:
        path = folder / f"{CLAIM}{number}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            if not _is_left(path, alone):
                raise CellBusy(f"{folder}: another process takes this cell now") from None
            number += 1
            continue
        except OSError as fault:
            raise unwritable(path, fault) from fault
        with contextlib.suppress(OSError):  # on a full disk it is nameless
            os.write(file, process_identity().encode())
        os.close(file)
        return path


def _is_left(claim: Path, alone: bool) -> bool:
    """Whether a claim is of a process that has gone."""
    try:
        handle = os.open(claim, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # its owner has just removed it
    try:
        alive = is_alive(os.pread(handle, RECORD_BYTES, 0).decode(errors="replace"))
        if alive is not None:
            return not alive
        return alone or silent_seconds(claim.parent, handle) > lease_seconds()
    finally:
        os.close(handle)


def _number(claim: Path) -> int:
    digits = claim.name.removeprefix(CLAIM)
    return int(digits) if digits.isdecimal() and len(digits) < 20 else 0


def _remove(claims: Iterable[Path]) -> None:
    for claim in claims:
        with contextlib.suppress(OSError):
            claim.unlink()


class Lease:
    """A cell that this process holds, with the heartbeat that tells so."""

    def __init__(self, folder: Path, claim: Path, holder: Holder) -> None:
        self.folder, self.claim, self.holder = folder, claim, holder
        self.named = True
        """Whether the lock file names this process."""
        self.lost = False
        """Whether another process has been found to hold the cell."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Lease:
        _held.append(self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)  # a file server that is away may hold it
        _held.remove(self)

    def check(self) -> None:
        """Looks whether this process still holds the cell.

        Raises:
            CellBusy: another process has taken it over.
        """
        now, mine = holder_of(self.folder), self.holder
        if self.named:
            other = now.number == mine.number and now.identity not in ("", mine.identity)
            self.lost = self.lost or other or now.number > mine.number
        self.check_known()

    def check_known(self) -> None:
        """The same, without a look at the file: what the heartbeat has found.

        Raises:
            CellBusy: another process has taken it over.
        """
        if self.lost:
            raise CellBusy(
                f"{self.folder}: this process was silent for too long (its machine was suspended "
                "or cut off), and another one has taken the cell over; nothing more is written"
            )

    def _beat(self) -> None:
        while not self._ended.wait(self.holder.seconds / BEATS):
            try:
                self.check()
                for path in (self.folder / LOCK_FILE, self.claim):
                    os.utime(path)  # by the file server's clock
            except CellBusy:
                return
            except OSError:  # a file server that does not answer: the next beat may reach it
                continue

    def give_back(self, handle: int) -> None:
        """Names nobody in the open lock file, unless another process is named there by now."""
        if self.named and read_holder(handle) == self.holder:
            free = Holder("", self.holder.number, 0.0)
            with contextlib.suppress(OSError):
                os.pwrite(handle, free.content, 0)
                os.fsync(handle)
        _remove([self.claim])
