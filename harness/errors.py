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
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from urllib.parse import unquote

LONGEST_LIST = 20
"""Names that an error lists at most."""
LONGEST_LISTING = 500
"""Characters that they take together."""
LONGEST_NAME = 60
"""Characters that it shows of each."""


class ZbenchError(Exception):
    """A fault that its message explains to the user; shown without a traceback.

    The message holds no password or token, whatever it quotes.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(mask_secrets(str(message)))


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
    names = [shortened(str(entry)) for entry in known]
    near = difflib.get_close_matches(shortened(str(name)), names, n=1, cutoff=0.5)
    count, room = 0, LONGEST_LISTING
    while count < min(len(names), LONGEST_LIST) and (count == 0 or len(names[count]) < room):
        room -= len(names[count]) + 2
        count += 1
    shown = ", ".join(names[:count])
    more = f", and {len(names) - count} more" if len(names) > count else ""
    listing = f"(known: {shown}{more})" if names else "(none is known)"
    return f"; did you mean '{near[0]}'? {listing}" if near else f" {listing}"


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """A text from outside as a line shows it: printable, in one line, and cut."""
    cut = name if len(name) <= longest else f"{name[:longest]}…"
    return printable(cut).replace("\n", "\\n").replace("\t", "\\t")


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


MASK = "***"
LONGEST_SECRET = 1000
"""Characters in which the end of a secret is looked for: a bound on the time."""
_WORDS = (
    r"pass(?:word|wd|phrase)|pwd|secret|credentials?"
    r"|(?:api|access|account|private|secret|shared|signing)[_-]?key"
)
_TOKENS = r"(?:access|api|auth|bearer|client|hf|hub|id|refresh|security|session|tracking)[_-]?token"
_VALUE = rf"\"[^\"\n]{{1,{LONGEST_SECRET}}}\"|'[^'\n]{{1,{LONGEST_SECRET}}}'|[^\s,;&|)}}\]\"'\\]+"
_SECRET_VARIABLE = re.compile(r"(?:TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY)$")
_USER_INFO = (
    re.compile(r"://([^\s/?#:@]*):?([^\s/?#]*)@"),
    re.compile(r"://([^\s/?#:@]*):([^\s@]*)@"),  # as SQLAlchemy reads it
)
_PARAMETER = re.compile(
    r"[?&;](?:[\w.%-]*(?:pass|pwd|token|secret|key)[\w.%-]*)=([^\s&;#]+)", re.IGNORECASE
)
SHORTEST_SECRET = 5
"""Of a secret of the environment: shorter ones would strike words out of a text."""


def mask_secrets(text: str, *addresses: str) -> str:
    """A text in which no user name, password or token of an address or of the environment stands.

    What is masked: `user:password@`, `?token=`, `password=` and their like, tokens of a hub, the
    values of environment variables such as MLFLOW_TRACKING_PASSWORD and HF_TOKEN; and the parts of
    `addresses`, which an error may quote alone.
    """
    for pattern in _patterns():
        text = pattern.sub(_masked, text)
    for secret in sorted({*_environment_secrets(), *_parts(addresses)}, key=len, reverse=True):
        if secret in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", MASK, text)
    return text


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """What masks secrets, compiled when a text is first masked."""
    return (
        # user:password@ and token@ of an address; a password may hold "/" and "@" as it is, and
        # an address that was taken for a path has one "/" left
        re.compile(
            rf"(?P<kept>:\\?/(?:\\?/)?)(?:[^\s/?#\"'<>:@]{{0,200}}:[^\s\"'<>]{{0,{LONGEST_SECRET}}}"
            rf"|[^\s/?#\"'<>]{{1,{LONGEST_SECRET}}})@"
        ),
        # the same where the scheme was forgotten
        re.compile(
            r"(?P<kept>(?<![\w/.:@-]))[^\s/:@=,\"'<>()]{1,200}:"
            rf"[^\s:@/\"'<>]{{1,{LONGEST_SECRET}}}@(?=\w)"
        ),
        # ?token=, &password=, #access_token= of an address
        re.compile(
            r"(?P<kept>[?&;#](?:amp;)?[\w.%-]{0,80}"
            r"(?:pass|pwd|token|secret|key|sig|cred|auth|policy|user|jwt|sas)[\w.%-]{0,40}=)"
            r"[^\s&;#\"'<>]*[^\s&;#\"'<>:,.)]",
            re.IGNORECASE,
        ),
        # password=, "hf_token": of a connection text, of JSON, YAML or Python
        re.compile(
            rf"(?P<kept>(?<![A-Za-z])(?:[\w.-]{{0,80}}[_.-])?(?:{_WORDS}|{_TOKENS})[\"']?"
            rf"\s{{0,3}}[=:]\s{{0,3}})(?:{_VALUE})",
            re.IGNORECASE,
        ),
        # token=, "token": "...", HF_TOKEN=, and the header of a request
        re.compile(
            rf"(?P<kept>(?<![\w-])(?:token|[A-Z][A-Z0-9_]{{0,80}}_(?:TOKEN|KEY|PASS))=)(?:{_VALUE})"
        ),
        re.compile(rf"(?P<kept>(?<!\w)[\"']token[\"']\s{{0,3}}:\s{{0,3}})(?:{_VALUE})"),
        re.compile(
            r"(?P<kept>\bbearer\s{1,3}|authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:\w+\s)?)"
            r"(?=[\w.~+/=-]{0,99}\d)[\w.~+/=-]{6,}",
            re.IGNORECASE,
        ),
        # what looks like a token of a hub, wherever it stands
        re.compile(
            r"(?P<kept>)\b(?:hf_(?=[A-Za-z]{0,99}\d)[A-Za-z0-9]{8,}|hf_[A-Za-z0-9]{20,}"
            r"|gh[opsu]_[A-Za-z0-9]{20,}|glpat-[\w-]{16,}|dapi[0-9a-f]{32}|AKIA[A-Z0-9]{16})"
        ),
    )


def _masked(found: re.Match[str]) -> str:
    return found["kept"] + MASK + ("@" if found[0].endswith("@") else "")


def _environment_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name.upper()) and len(value) >= SHORTEST_SECRET:
            yield value


def _parts(addresses: Iterable[str]) -> Iterator[str]:
    """User names, passwords and tokens of addresses, as they are and decoded."""
    for address in addresses:
        found = [part for form in _USER_INFO for pair in form.findall(address) for part in pair]
        for part in [*found, *_PARAMETER.findall(address)]:
            yield from (each for each in (part, unquote(part)) if len(each) > 2)
