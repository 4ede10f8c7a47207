"""How a failed command ends: one line on stderr, and a file where zbench itself is at fault."""

from __future__ import annotations

import errno
import io
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import ZbenchError, mask_secrets, plain_message, printable

UNEXPECTED = 70
"""Exit code after a fault that zbench does not know; EX_SOFTWARE of BSD's sysexits."""
PACKAGES = (
    *("torch", "transformers", "peft", "lm_eval", "datasets", "accelerate", "safetensors"),
    *("tokenizers", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "typer"),
)
_OF_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EISDIR),
}
"""Errors of the operating system that are nobody's mistake in zbench: no file is written."""


def explain(fault: Exception) -> int:
    """Prints what went wrong and returns the exit code."""
    show: Any = getattr(fault, "show", None)
    if callable(show):  # of typer's own errors: a wrong option or argument
        text = io.StringIO()
        show(text)
        print(printable(text.getvalue()), end="", file=sys.stderr)
        return int(getattr(fault, "exit_code", 2))
    if isinstance(fault, ZbenchError):
        _print(str(fault))
        return fault.exit_code
    if isinstance(fault, MemoryError):
        _print("out of memory; free the memory of other processes, or use a larger machine")
        return 1
    if isinstance(fault, OSError) and fault.errno in _OF_THE_SYSTEM:
        place = fault.filename or "output"
        if fault.filename is None:  # what is left to print would be tried again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _print(f"{place}: {fault.strerror}; see to space and rights there, and run it again")
        return 1
    if isinstance(fault, FileNotFoundError) and not _is_somewhere():
        _print("the folder that this runs in is gone; change to another")
        return 1
    _print(
        f"unexpected fault in {_place(fault)}: {plain_message(fault)}; {_kept(fault)}; "
        "--debug shows it here"
    )
    return UNEXPECTED


def _is_somewhere() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _print(text: str) -> None:
    for line in printable(mask_secrets(text)).split("\n"):
        print(f"zbench: {line}", file=sys.stderr)


def _place(fault: BaseException) -> str:
    """The last line of zbench that the fault went through."""
    package = Path(__file__).parent.parent
    for frame in reversed(traceback.extract_tb(fault.__traceback__)):
        if Path(frame.filename).is_relative_to(package):
            return f"{Path(frame.filename).relative_to(package.parent)}, line {frame.lineno}"
    return "zbench"


def _kept(fault: BaseException) -> str:
    """Writes the fault's file; returns what to say of it."""
    text = details(fault, sys.argv)
    name = f"zbench-fault-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (Path.cwd, lambda: Path(tempfile.gettempdir())):
        try:
            file = folder() / name
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as kept:
                kept.write(text.encode("utf-8", errors="backslashreplace"))
        except OSError:  # read-only, full, or gone: the next place
            continue
        return f"report it with {file}, which holds its traceback"
    return "no folder could be written for its traceback"


def details(fault: BaseException, command: Sequence[str]) -> str:
    """What a developer must know of a fault: traceback and versions, without secrets."""
    lines = [f"zbench {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not installed")
    trace = "".join(traceback.format_exception(fault))
    return mask_secrets("\n".join([*lines, f"command: {list(command)[1:]}", "", trace]))
