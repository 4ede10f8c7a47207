"""What every reader does first: a path that a user gave, and a whole regular file of bounded size.

Why a file cannot be read, and what to do about it, is one table: `ADVICE`. A reader names the
cause; no reader words advice of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

from harness.errors import UsageError, ZbenchError, did_you_mean, one_line

Cause = Literal[
    "missing", "folder", "special", "forbidden", "unreadable", "empty", "lfs pointer",
    "too large", "too deep", "cut off", "damaged", "no weights", "no text", "other format",
    "content"
]  # fmt: skip
"""Why a file cannot be read."""

ADVICE: dict[Cause, str] = {
    "missing": "correct the path, or put the file there",
    "folder": "name a file in it",
    "special": "give a regular file in its place (it may be a pipe, a socket or a device)",
    "forbidden": "give yourself the right to read it (chmod +r), or copy it to where you have it",
    "unreadable": "see that its disk is mounted and in order",
    "empty": "make or fetch the file again, with its content",
    "lfs pointer": "it only names a file that Git LFS keeps; run 'git lfs pull' in its repository",
    "too large": "see that it is the file that is meant",
    "too deep": "see that it is the file that is meant",
    "cut off": "fetch the whole file from where it came",
    "damaged": "fetch the file from where it came",
    "no weights": "give the file as it was trained and saved, in floating-point numbers",
    "no text": "store it as UTF-8 text",
    "other format": "convert it",
    "content": "correct the file",
}
"""What cures each cause; a reader that knows more puts its own words in their place."""

LFS_HEAD = b"version https://git-lfs.github.com/spec/"
MAX_TEXT_BYTES = 64 * 2**20
"""Of a text file that is read whole: a large tokenizer.json has 34 MB."""


class Unreadable(ZbenchError):
    """A file from outside that cannot be read as what it should be.

    Attributes:
        path: the file.
        cause: why, one of `ADVICE`'s keys.
        found: what is wrong with it.
        advice: what to do about it, where that is not its cause's.
    """

    def __init__(self, path: Path, cause: Cause, found: str, advice: str | None = None) -> None:
        self.path, self.cause, self.found, self.advice = path, cause, found, advice
        super().__init__(f"{path}: {found}; {advice or ADVICE[cause]}")


def user_path(text: str | Path) -> Path:
    """A path as a user wrote it, with `~` expanded.

    Raises:
        UsageError: no file can have this path; the message names no place, which the caller knows.
    """
    raw = str(text)
    if not raw.strip() or any(ord(c) < 32 or ord(c) == 127 for c in raw):
        raise UsageError(f"{raw!r} is no path: empty, or with control characters; correct it")
    try:
        raw.encode("utf-8")
        path = Path(raw).expanduser()
        path.exists()
    except UnicodeEncodeError as fault:
        raise UsageError(f"{raw!r} is no path: it is no valid Unicode; correct it") from fault
    except RuntimeError as fault:
        user = raw.split("/")[0]
        raise UsageError(f"{raw}: there is no user {user}; write the whole path") from fault
    except PermissionError:
        pass  # a folder on the way that you may not enter: told by what reads or writes there
    except OSError as fault:
        shown = raw if len(raw) <= 60 else f"{raw[:60]}… ({len(raw)} characters)"
        raise UsageError(f"{shown}: is no path ({fault.strerror}); correct it") from fault
    return path


def check_file(path: Path, *, max_bytes: int | None = None) -> int:
    """Checks that a path is a regular file that may be read and holds something; returns its size.

    It is opened only if it is a regular file: opening a pipe would wait for ever.

    Raises:
        Unreadable: it is missing, a folder, a pipe, empty, a Git LFS pointer, too large, forbidden.
    """
    return _checked(path, max_bytes, len(LFS_HEAD))[0]


def _checked(path: Path, max_bytes: int | None, wanted: int) -> tuple[int, bytes]:
    """The size of a file that passes `check_file`, and its first bytes; -1: all of them."""
    place = os.fspath(path)
    try:
        found = os.stat(place)
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable(path, "folder", "is a folder, not a file")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(path, "special", "is no regular file")
        too_large = max_bytes is not None and found.st_size > max_bytes
        with open(place, "rb", buffering=0) as file:  # read at once: status reads thousands
            content = file.read(len(LFS_HEAD) if too_large else wanted)
    except OSError as fault:
        raise unreadable(path, fault) from fault
    if found.st_size == 0:
        raise Unreadable(path, "empty", "is empty (0 bytes)")
    if content.startswith(LFS_HEAD):
        raise Unreadable(path, "lfs pointer", "is a Git LFS pointer, not the file itself")
    if max_bytes is not None and too_large:
        size = f"{found.st_size / 2**20:,.0f} MiB, at most {max_bytes / 2**20:,.0f} are read"
        raise Unreadable(path, "too large", f"is too large ({size})")
    return found.st_size, content


def unreadable(path: Path, fault: OSError) -> Unreadable:
    """What an operating system's error means for a file that is to be read."""
    if fault.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unreadable(path, "missing", "no such file")
    if fault.errno in (errno.EACCES, errno.EPERM):
        return Unreadable(path, "forbidden", "may not be read by you")
    if fault.errno == errno.EISDIR:
        return Unreadable(path, "folder", "is a folder, not a file")
    return Unreadable(path, "unreadable", f"cannot be read ({one_line(fault.strerror or fault)})")


def read_bytes(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file that is small enough to be read whole.

    Raises:
        Unreadable: it cannot be read, or is larger.
    """
    return _checked(path, max_bytes, -1)[1]


def read_text(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The content of a UTF-8 text file; a byte order mark at its beginning is left out.

    Raises:
        Unreadable: it cannot be read, is larger, or is no UTF-8.
    """
    return decode(read_bytes(path, max_bytes=max_bytes), path)


def decode(content: bytes, path: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a file's content.

    Raises:
        Unreadable: it is no text in this encoding.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        byte = f"byte {content[fault.start]:#04x} in line {line}"
        name = encoding.removesuffix("-sig").upper()
        raise Unreadable(path, "no text", f"is no {name} text ({byte})") from fault


def instead_of(path: Path) -> str:
    """What may be meant where nothing is at a path."""
    try:
        if path.is_symlink():
            return f": it is a link to {os.readlink(path)}, which is not there; correct the link"
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:  # no folder, or one that may not be listed
        return ""
    return did_you_mean(path.name, names[:20]) if names else ""
