"""The errors that users see: one line each, saying where, what is wrong and what to do.

ZbenchError                exit code 1
├── UsageError             exit code 2: wrong command line, nothing has run
│   └── GridError          exit code 2: faults of a grid file, all of them, one a line
├── DataError              a data set is missing, truncated, or lacks a column
├── ModelError             a checkpoint or tokenizer is missing, gated, broken, or of another shape
├── MethodError            a method's options do not fit the model
├── TrainingError          training cannot go on (a loss that is not a number, say)
├── EvaluationError        a benchmark cannot be scored
├── StorageError           a file cannot be written (no rights, disk full)
├── TrackingError          MLflow cannot be reached or refuses
└── ReportError            there is nothing to report
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

LONGEST_LIST = 20
"""Names that an error lists at most."""
LONGEST_NAME = 60
"""Characters that it shows of each."""


class ZbenchError(Exception):
    """A fault that its message explains to the user; shown without a traceback."""

    exit_code = 1


class UsageError(ZbenchError):
    """The command line or the grid is wrong; nothing has run."""

    exit_code = 2


class GridError(UsageError):
    """One or more faults of a grid file.

    Attributes:
        faults: one line per fault, each with its place in the file.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class DataError(ZbenchError):
    """A data set is missing, truncated, or lacks a column."""


class ModelError(ZbenchError):
    """A checkpoint or tokenizer is missing, gated, broken, or of another shape."""


class MethodError(ZbenchError):
    """A method's options do not fit the model."""


class TrainingError(ZbenchError):
    """Training cannot go on."""


class EvaluationError(ZbenchError):
    """A benchmark cannot be scored."""


class StorageError(ZbenchError):
    """A file cannot be written."""


class TrackingError(ZbenchError):
    """MLflow cannot be reached, or refuses."""


class ReportError(ZbenchError):
    """There is nothing to report."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error line that names what exists, as `; did you mean 'x'? (known: ...)`.

    It is only the known names where none is near.
    """
    names = [_cut(str(entry)) for entry in known]
    near = difflib.get_close_matches(_cut(str(name)), names, n=1, cutoff=0.5)
    shown = ", ".join(names[:LONGEST_LIST])
    more = f", and {len(names) - LONGEST_LIST} more" if len(names) > LONGEST_LIST else ""
    listing = f"(known: {shown}{more})" if names else "(none is known)"
    return f"; did you mean '{near[0]}'? {listing}" if near else f" {listing}"


def _cut(name: str) -> str:
    return printable(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")


def one_line(fault: object) -> str:
    """An exception's text without line breaks, printable, cut at 200 characters."""
    return printable(" ".join(str(fault).split()))[:200]


_CLASS = re.compile(
    r"<class '([^']*)'>|<(\S+) object at 0x[0-9a-f]+>"
    r"|(?:\b\w+\.)*\b[A-Z]\w*(?:Error|Exception|Interrupt)\b(?:\(|: ?)?"
)
"""How Python shows its classes and objects, and the names of its errors."""


def plain_message(fault: BaseException) -> str:
    """An exception's message in one line for a user: without the names of Python's classes."""
    text = _CLASS.sub(lambda found: found[1] or found[2] or "", one_line(fault)).strip()
    return text or "no message"


def printable(text: str) -> str:
    """A text with whatever could steer a terminal or be no valid UTF-8 escaped, as in `\\x1b`.

    Line breaks and tabs stay; control characters (also C1), lone surrogates, and marks that turn
    the direction of writing do not.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_plain(char) else _escaped(char) for char in text)


def _is_plain(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
