"""Reading JSON from outside: of bounded size and depth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness.errors import one_line
from harness.readers.files import MAX_TEXT_BYTES, Unreadable, read_text

MAX_DEPTH = 200
"""Of nesting: no file meant for zbench comes near it; Python's parser fails at 1,000."""


def read_json(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        Unreadable: it cannot be read, or is no JSON, or is nested too deeply.
    """
    return parse_json(read_text(path, max_bytes=max_bytes), path)


def read_json_object(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        Unreadable: it cannot be read, or holds none.
    """
    content = read_json(path, max_bytes=max_bytes)
    if not isinstance(content, dict):
        found = "a list" if isinstance(content, list) else f"{content!r:.40}"
        raise Unreadable(path, "content", f"holds {found}, where a JSON object is due")
    return content


def parse_json(text: str, path: Path) -> Any:
    """What a JSON text means; `path` is where it was read.

    Raises:
        Unreadable: it is no JSON, or is nested too deeply.
    """
    if _depth(text) > MAX_DEPTH:
        raise Unreadable(path, "too deep", f"is nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        cut = fault.pos >= len(text.rstrip())
        said = f"is no JSON (line {fault.lineno}, column {fault.colno}: {fault.msg})"
        raise Unreadable(path, "cut off" if cut else "content", said) from fault
    except ValueError as fault:  # thousands of digits
        raise Unreadable(
            path, "content", f"holds a number beyond reason ({one_line(fault)})"
        ) from fault


def _depth(text: str) -> int:
    """How deep brackets nest, outside strings, as far as MAX_DEPTH matters."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', text):
        if (first := token[0][0]) in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif first in "]}":
            depth -= 1
    return deepest
