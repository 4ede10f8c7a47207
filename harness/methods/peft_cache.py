"""Answers of PEFT that are kept, so that a grid is read again without importing it.

Refusals are not: they are asked anew, since another installation may take what this one does not.

A question is a JSON text: what is asked, of which settings and shape. PEFT's version is part of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import StorageError
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import cache_folder, sha256_of_json, write_text

T = TypeVar("T")
_FORMAT = 3
"""Incremented by every code change that alters an answer."""
_KEPT = 5000


def remembered(question: Mapping[str, Any], answer: Callable[[], T]) -> T:
    """The answer, a JSON value, to a question: the kept one, or `answer()`, which is kept then.

    What `answer` raises is raised.
    """
    whole = dict(question) | {"format": _FORMAT, "peft": _peft_version()}
    key = sha256_of_json(whole)[:24]
    known = _known()
    if key not in known:
        known[key] = answer()
        with contextlib.suppress(StorageError, RuntimeError):  # without it, time is lost alone
            kept = _read() | known
            write_text(_file(), json.dumps(dict(list(kept.items())[-_KEPT:])))
    found: T = known[key]
    return found


@functools.cache
def _known() -> dict[str, Any]:
    return _read()


@functools.cache
def _peft_version() -> str:
    return version("peft")


def _file() -> Path:
    return cache_folder() / "peft.json"


def _read() -> dict[str, Any]:
    try:
        return read_json_object(_file())
    except (Unreadable, RuntimeError):  # without it, time is lost alone
        return {}
