"""Files as they are or packed by gzip or zstd: their bytes in order, bounded in what is held."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import one_line, plain_message
from harness.readers.files import Unreadable, check_file, unreadable

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAX_UNPACKED_BYTES = 8 * 2**30
"""Of a packed file that must be unpacked to be read, to a temporary one."""


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Gives a file's content from its beginning on, unpacked if it is packed.

    What the block reads of a damaged file is told in one line.

    Raises:
        Unreadable: it cannot be read, is cut off, or is damaged.
    """
    import pyarrow

    check_file(path)
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
            raw.seek(0)
            stream: Any = raw
            if head.startswith(GZIP):
                stream = gzip.GzipFile(fileobj=raw)
            elif head == ZSTD:
                stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
            yield stream
    except EOFError as fault:
        raise Unreadable(path, "cut off", "is a gzip file whose end is missing") from fault
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise _damaged(path, "gzip", fault) from fault
    except pyarrow.ArrowException as fault:
        raise _damaged(path, "zstd", fault) from fault
    except OSError as fault:
        if fault.errno is not None:
            raise unreadable(path, fault) from fault
        cut = "truncated" in str(fault).lower()
        if cut:
            raise Unreadable(path, "cut off", "is a zstd file whose end is missing") from fault
        raise _damaged(path, "zstd", fault) from fault


def is_packed(path: Path) -> bool:
    """Whether a file is packed by gzip or zstd."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as fault:
        raise unreadable(path, fault) from fault
    return head.startswith(GZIP) or head == ZSTD


@contextlib.contextmanager
def unpacked_file(path: Path) -> Iterator[Path]:
    """Gives the file itself, or a temporary one with its content where it is packed.

    Faults of the temporary file are told as faults of the file.

    Raises:
        Unreadable: it cannot be unpacked, or is larger than MAX_UNPACKED_BYTES then.
    """
    if not is_packed(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="zbench-") as folder:
        temporary = Path(folder) / path.stem
        with unpacked(path) as stream, temporary.open("wb") as file:
            while block := stream.read(2**20):
                file.write(block)
                if file.tell() > min(MAX_UNPACKED_BYTES, shutil.disk_usage(folder).free):
                    said = f"unpacks to more than {file.tell() / 2**30:,.1f} GiB"
                    raise Unreadable(path, "too large", said)
        try:
            yield temporary
        except Unreadable as fault:
            if fault.path != temporary:
                raise
            raise Unreadable(path, fault.cause, f"unpacked, {fault.found}", fault.advice) from fault


def _damaged(path: Path, kind: str, fault: Exception) -> Unreadable:
    return Unreadable(
        path, "damaged", f"is damaged {kind} ({one_line(plain_message(fault))[:120]})"
    )
