"""SHA-256 of files, read once: what says that a local file is still the one that was used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError

if TYPE_CHECKING:
    import pandas as pd

LARGE_BYTES = 256 * 2**20
"""Files above this are remembered across processes, by path, size and time of change."""


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def known_sha256_of_file(path: Path) -> str | None:
    """Returns the SHA-256 of a file where that takes no long reading, else None."""
    try:
        stat = path.stat()
        if stat.st_size < LARGE_BYTES:
            return sha256_of_file(path)
        return _remembered().get(_key(str(path.resolve()), stat.st_size, stat.st_mtime_ns))
    except OSError:
        return None


def sha256_of_files(files: Sequence[Path]) -> str:
    """Returns the SHA-256 of one file, or that of the `<sha256>  <name>` lines of several.

    Raises:
        OSError: a file cannot be read.
    """
    return _joined(files, [sha256_of_file(file) for file in files])


def known_sha256_of_files(files: Sequence[Path]) -> str | None:
    """Returns what `sha256_of_files` does where that takes no long reading, else None."""
    known = [known_sha256_of_file(file) for file in files]
    sums = [each for each in known if each is not None]
    return _joined(files, sums) if files and len(sums) == len(files) else None


def _joined(files: Sequence[Path], sums: Sequence[str]) -> str:
    if len(files) == 1:
        return sums[0]
    lines = "".join(f"{each}  {file.name}\n" for each, file in zip(sums, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=1024)
def _sha256(path: str, size: int, changed: int) -> str:
    key = _key(path, size, changed)
    if size >= LARGE_BYTES and (known := _remembered().get(key)) is not None:
        return known
    with Path(path).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    if size >= LARGE_BYTES:
        _remember(key, content)
    return content


def _key(path: str, size: int, changed: int) -> str:
    return f"{path} {size} {changed}"


def _memory() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "zbench" / "fingerprints.json"


def _remembered() -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(_memory().read_text(encoding="utf-8"))
        return known
    except (OSError, ValueError, RuntimeError):
        return {}


def _remember(key: str, content: str) -> None:
    """Adds to what is remembered; a cache that cannot be written costs time alone."""
    with contextlib.suppress(OSError, RuntimeError):
        memory = _memory()
        memory.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_remembered() | {key: content}, indent=1)
        handle, aside = tempfile.mkstemp(dir=memory.parent)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(aside).replace(memory)


def write_text(path: Path, text: str) -> None:
    """Writes a text file under a temporary name beside it, flushes it to disk, and renames it.

    Raises:
        StorageError: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside it, flushes it to disk, and renames it.

    Raises:
        StorageError: the file cannot be written.
    """
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    except OSError as fault:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({fault.strerror or fault}); free space or choose another "
            "folder, then run the same command again"
        ) from fault


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Writes a data frame as parquet, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    write_bytes(path, buffer.getvalue())
