"""Atomic writes, so that a file or folder is whole or not there, and SHA-256 of file content."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

LARGE_BYTES = 256 * 2**20
"""Files above this are remembered across processes, by path, size and time of change."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a temporary file beside `path`, which takes its place when the block ends.

    It is flushed to disk before. Where the block raises, `path` is as it was.

    Raises:
        StorageError: the file cannot be written.
    """
    with _temporary(path, folder=False) as temporary:
        yield temporary
        temporary.chmod(0o644)
        flush(temporary)
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
    with _temporary(path, folder=True) as temporary:
        yield temporary
        temporary.chmod(0o755)
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(0o644)
                flush(file)
        if replace and path.exists():
            with _temporary(path, folder=True) as old:
                path.replace(old)
                temporary.replace(path)
        else:
            temporary.replace(path)
        flush(path.parent)


@contextlib.contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    """Gives a hidden file or folder beside `path`, named after it and removed at the end.

    Raises:
        StorageError: in place of an OSError of the block.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}."
        if folder:
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
        else:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix)
            os.close(handle)
            temporary = Path(name)
        yield temporary
    except OSError as fault:
        raise StorageError(
            f"{path}: cannot be written ({one_line(fault.strerror or fault)}); free space or "
            "choose another folder, then run the same command again"
        ) from fault
    finally:
        if temporary is not None:
            if folder:
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flushes a file's content, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Writes a data frame as parquet, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    write_bytes(path, buffer.getvalue())


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


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, read once while its size and time stay the same.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def fresh_sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, read anew: what tells that it is undamaged.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def sha256_of_json(content: object) -> str:
    """Returns the SHA-256 of the canonical JSON of plain values: sorted keys, no blanks."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
    content = fresh_sha256_of_file(Path(path))
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
    with contextlib.suppress(StorageError, RuntimeError):
        write_text(_memory(), json.dumps(_remembered() | {key: content}, indent=1))
