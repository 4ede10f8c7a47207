"""How far the file locks of a runs folder reach: every machine that sees it, one machine, or none.

A local disk is seen by one machine, whose locks hold. Of a network's file system nobody knows until
two machines have tried: the one that submits holds a lock on a probe file, and a job on another
answers beside it. The answer is kept in the runs folder, by kind of file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from harness.errors import StorageError, UsageError, one_line
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text
from harness.records.process import is_alive, process_identity

REACH_FILE = ".locks.json"
"""In the runs folder: what was found out of its locks."""
PROBE = ".probe-"
LOCAL_KINDS = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs",
     "tmpfs", "xfs", "zfs")
)  # fmt: skip
"""File systems of one machine."""

Reach = Literal["machines", "node", "unknown", "none"]
"""Of a lock: seen by all machines, by one alone, by nobody knows whom; or there are no locks."""


def lock_reach(runs_dir: Path) -> Reach:
    """How far locks in a runs folder reach; looked up once per process."""
    return _reach(runs_dir.absolute())


@cache
def _reach(runs_dir: Path) -> Reach:
    kind, _ = mount_of(runs_dir / "cells")
    kept = _kept(runs_dir).get(kind)
    if kept in get_args(Reach):
        return kept  # type: ignore[return-value]  # it is one of them
    return _by_kind(kind)


def _by_kind(kind: str) -> Reach:
    """What is to be expected of a file system before it is tried."""
    return "machines" if kind in LOCAL_KINDS else "unknown"


def forget_reach(runs_dir: Path) -> None:
    """Drops what was found out: the folder was mounted otherwise since."""
    kind = mount_of(runs_dir / "cells")[0]
    keep_reach(runs_dir, _by_kind(kind), kind)


def keep_reach(runs_dir: Path, reach: Reach, *kinds: str) -> None:
    """Keeps what was found out, for the kinds of file system through which the folder was seen.

    A folder that cannot be written keeps nothing, and is probed again.
    """
    found = _kept(runs_dir)
    known = found | dict.fromkeys(kinds or (mount_of(runs_dir / "cells")[0],), reach)
    if known != found:
        with contextlib.suppress(StorageError):
            write_text(runs_dir / REACH_FILE, json.dumps(known, indent=1) + "\n")
    _reach.cache_clear()


def _kept(runs_dir: Path) -> dict[str, Any]:
    try:
        return dict(read_json_object(runs_dir / REACH_FILE))
    except Unreadable:  # there is none, or it is damaged: it is found out again
        return {}


@dataclass(frozen=True)
class FolderProbe:
    """A runs folder that another machine is asked about."""

    runs_dir: Path
    path: Path
    """The probe file, from the root: what `answer_probe` gets, on the other machine."""
    token: str
    handle: int = field(repr=False)
    """The open file, locked where there are locks."""
    locked: bool


@contextlib.contextmanager
def begin_probe(runs_dir: Path) -> Iterator[FolderProbe]:
    """Lays a locked probe file into a runs folder, and takes it away at the end of the block.

    In the block another machine calls `answer_probe(probe.path)`, or runs
    `python -m harness.grid.shared_folder PATH`; then `end_probe` tells what came of it.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = runs_dir.resolve() / "cells"
    path, token = place / f"{PROBE}{secrets.token_hex(4)}", secrets.token_hex(16)
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(handle, token.encode())
        os.fsync(handle)
    except OSError as fault:
        raise UsageError(
            f"{place}: cannot be written ({one_line(fault.strerror or fault)}); choose another "
            "folder with --runs-dir"
        ) from fault
    try:
        yield FolderProbe(runs_dir, path, token, handle, _lock(handle) == "free")
    finally:
        os.close(handle)
        for file in (path, _answer(path)):
            with contextlib.suppress(OSError):
                file.unlink()


def answer_probe(path: Path) -> None:
    """Tells what this machine sees of a probe file, in a file beside it.

    Raises:
        UsageError: it does not see it, or cannot write there.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise UsageError(
            f"{path.parent}: not seen from {process_identity().partition(':')[0]} "
            f"({one_line(fault.strerror or fault)}); choose a shared folder with --runs-dir"
        ) from fault
    try:
        answer = {
            "token": os.pread(handle, 100, 0).decode(errors="replace"),
            "lock": _lock(handle),
            "identity": process_identity(),
            "kind": mount_of(path)[0],
        }
    finally:
        os.close(handle)
    write_text(_answer(path), json.dumps(answer) + "\n")


def end_probe(probe: FolderProbe, patience_seconds: float = 30.0) -> Reach:
    """How far the locks of a runs folder reach, by the answer of another machine; it is kept.

    Args:
        patience_seconds: how long an answer may take to be seen here, once it is written.

    Raises:
        UsageError: there is none: the other machine does not see the folder.
    """
    end = time.monotonic() + patience_seconds
    while (answer := _read_answer(probe)) is None:
        if time.monotonic() > end:
            raise UsageError(
                f"{probe.runs_dir}: the machines that are to run the cells do not see it (a job "
                "there has left no answer in it); choose a folder on a file system that they "
                "share, with --runs-dir"
            )
        time.sleep(0.2)
    here = mount_of(probe.path)[0]
    seen = answer["lock"]
    if not probe.locked or seen == "none":
        reach: Reach = "none"
    elif seen == "free":
        reach = "node"
    elif is_alive(str(answer["identity"])) is None:  # of another machine
        reach = "machines"
    else:  # it was this machine: nothing new
        return lock_reach(probe.runs_dir)
    keep_reach(probe.runs_dir, reach, here, str(answer["kind"]))
    return reach


def _answer(path: Path) -> Path:
    return path.with_name(f"{path.name}.answer")


def _read_answer(probe: FolderProbe) -> dict[str, Any] | None:
    try:
        found = dict(read_json_object(_answer(probe.path)))
    except Unreadable:
        return None
    return found if found.get("token") == probe.token else None


def _lock(handle: int) -> Literal["free", "held", "none"]:
    """What comes of an attempt to lock a file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "none"
    return "free"


def mount_of(path: Path) -> tuple[str, str]:
    """The kind of file system that holds a path, and where it is mounted; empty where unknown."""
    resolved = str(path.resolve())
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            _, place, name, *_ = line.split(" ")
            place = place.replace(r"\040", " ")
            inside = resolved == place or resolved.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):  # a later mount hides an earlier one
                best, kind = place, name
    return one_line(kind), one_line(best)


def file_system(path: Path) -> str:
    """The file system that holds a path, in words: `lustre at /scratch`."""
    kind, place = mount_of(path)
    return f"{kind} at {place}" if place else "its file system"


if __name__ == "__main__":
    try:
        answer_probe(Path(sys.argv[1]))
    except (UsageError, StorageError) as fault:
        sys.exit(f"error: {fault}")
