"""Atomic writes, so that a file or folder is whole or not there, and SHA-256 of file content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError, one_line
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, 0), "free space or choose another folder"
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "give yourself the right to write there, or choose another folder",
    ),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY),
        "remove what lies in its place",
    ),
    errno.ENAMETOOLONG: "choose a folder or a label with a shorter name",
}
"""What cures each cause; 0 stands for a library that tells none."""

LARGE_BYTES = 256 * 2**20
"""Files above this are remembered across processes, by path, size and time of change."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file, which takes the place of `path` when the block ends.

    It is flushed to disk before. Where the block raises, `path` is as it was.

    Raises:
        StorageError: the file cannot be written.
    """
    with _temporary(path) as folder:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(0o644)
        flush(temporary)
        _check_guards(path)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `path`, which takes its place when the block ends.

    Its files are flushed to disk before, and the folder that holds it after, so that what it
    supersedes may then be removed. Where the block raises, `path` is as it was.

    Args:
        path: a folder that is not there, or is empty.
        replace: whether it may also hold something; that is removed.

    Raises:
        StorageError: the folder cannot be written.
    """
    with _temporary(path) as temporary:
        yield temporary
        temporary.chmod(0o755)
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(0o644)
                flush(file)
        _check_guards(path)
        with _temporary(path) as old:
            if replace and path.exists():
                path.replace(old)
            temporary.replace(path)
        flush(path.parent)


_guards: dict[str, Callable[[], None]] = {}


@contextlib.contextmanager
def guarded_writes(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Has `check` called before a file in a folder takes its name; what it raises prevents that."""
    place = os.path.abspath(folder)
    _guards[place] = check
    try:
        yield
    finally:
        del _guards[place]


def _check_guards(path: Path) -> None:
    place = os.path.abspath(path)
    for folder, check in list(_guards.items()):
        if place.startswith(f"{folder}{os.sep}"):
            check()


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Gives a hidden folder beside `path`, named after it and removed at the end if still there.

    Raises:
        StorageError: in place of an OSError of the block.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True
        ) as temporary:
            yield Path(temporary)
    except OSError as fault:
        raise unwritable(path, fault) from fault


def unwritable(path: Path, fault: OSError) -> StorageError:
    """What an operating system's error means for a file that is to be written."""
    advice = _ADVICE.get(fault.errno or 0, "see that its disk is mounted and in order")
    said = one_line(fault.strerror or fault)
    return StorageError(
        f"{path}: cannot be written ({said}); {advice}, then run the same command again"
    )


def flush(path: Path) -> None:
    """Flushes a file's content, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all: see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_frame(path: Path, frame: pd.DataFrame) -> str:
    """Writes a data frame as parquet, whole or not at all, and returns the file's SHA-256.

    Raises:
        StorageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors, from the CPU; within `atomic_file` or `atomic_folder`.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(on_cpu, path, metadata={"format": "pt"})
    except SafetensorError as fault:
        raise OSError(str(fault)) from fault


class SpecialFileError(OSError):
    """A pipe, a socket or a device in the place of a file."""


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, read once while its size and time stay the same.

    Raises:
        OSError: it cannot be read.
    """
    return _sha256(*_version(path))


def fresh_sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, read anew: what tells that it is undamaged.

    Raises:
        OSError: it cannot be read.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # opening a pipe would wait for ever
        raise SpecialFileError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256_of_file(path: Path) -> str | None:
    """The SHA-256 of a file where that takes no long reading, else None."""
    try:
        name, size, changed = _version(path)
        if size < LARGE_BYTES:
            return _sha256(name, size, changed)
        return _remembered().get(f"{name} {size} {changed}")
    except OSError:
        return None


def sha256_of_files(files: Sequence[Path]) -> str:
    """The SHA-256 of one file, or that of the `<sha256>  <name>` lines of several.

    Raises:
        OSError: a file cannot be read.
    """
    if len(files) == 1:
        return sha256_of_file(files[0])
    lines = "".join(f"{sha256_of_file(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def known_sha256_of_files(files: Sequence[Path]) -> str | None:
    """What `sha256_of_files` does where that takes no long reading, else None."""
    known = files and all(known_sha256_of_file(file) is not None for file in files)
    return sha256_of_files(files) if known else None


def sha256_of_json(content: object) -> str:
    """The SHA-256 of the canonical JSON of plain values: sorted keys, no blanks."""
    return hashlib.sha256(_CANONICAL.encode(content).encode()).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=1024)
def _sha256(path: str, size: int, changed: int) -> str:
    if size < LARGE_BYTES:
        return fresh_sha256_of_file(Path(path))
    key = f"{path} {size} {changed}"
    if (known := _remembered().get(key)) is not None:
        return known
    content = fresh_sha256_of_file(Path(path))
    with contextlib.suppress(StorageError, RuntimeError):  # without it, time is lost alone
        write_text(_memory(), json.dumps(_remembered() | {key: content}, indent=1))
    return content


def _version(path: Path) -> tuple[str, int, int]:
    """What differs once a file has changed: its place, size in bytes, and time of change in ns."""
    found = path.stat()
    return str(path.resolve()), found.st_size, found.st_mtime_ns


def cache_folder() -> Path:
    """The user's folder of what is quicker to keep than to find out again.

    Raises:
        RuntimeError: the user has no home.
    """
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "zbench"


def _memory() -> Path:
    return cache_folder() / "fingerprints.json"


def _remembered() -> dict[str, str]:
    try:
        known = read_json_object(_memory())
    except (Unreadable, RuntimeError):  # without it, time is lost alone
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}
