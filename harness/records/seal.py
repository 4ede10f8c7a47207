"""A JSON record that says its own SHA-256, so that damage to it is found, whatever it is."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

KEY = "sha256"
_HEAD = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')


def canonical(record: Any) -> str:
    """The text of a record: sorted keys, a line each.

    Raises:
        ValueError: a number of it is none.
    """
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def sealed(text: str) -> bytes:
    """The content of the file that holds a record, which is given as its canonical text.

    The seal comes first, and is of all that follows.
    """
    assert text.startswith("{\n")
    content = text.encode()
    return b'{\n "%s": "%s",\n' % (KEY.encode(), _sha256(content).encode()) + content[2:]


def check_seal(content: bytes) -> None:
    """Checks a file's content against its seal, if it has one: those of older versions have none.

    A file that was only written in another form, by an editor say, is still the same.

    Raises:
        ValueError: it was changed, or has a seal and is no JSON.
    """
    if b'"%s"' % KEY.encode() not in content:
        return  # of an older version: whoever reads it says whether it is JSON
    head = _HEAD.match(content)
    if head and _sha256(b"{\n" + content[head.end() :]).encode() == head[1]:
        return
    try:
        record = json.loads(content)
        seal = record.pop(KEY, None) if isinstance(record, dict) else None
        whole = seal is None or _sha256(canonical(record).encode()) == seal
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not whole:
        raise ValueError("its SHA-256 is another: it was changed after it was written")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
