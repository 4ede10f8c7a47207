"""Files of lines that are added to, by several processes at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from harness.records.files import unwritable


def append_lines(path: Path, lines: bytes) -> None:
    """Adds whole lines to a file and flushes it to disk, in one piece.

    They begin behind a half line that a killed process left.

    Raises:
        StorageError: they cannot be written; half of them may be there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            half = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            written = b"\n" * half + lines
            if os.write(handle, written) < len(written):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        raise unwritable(path, fault) from fault
