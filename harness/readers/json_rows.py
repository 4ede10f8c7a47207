"""Rows in JSON from outside: a list of objects, or objects one after the other (JSON Lines).

They are read one by one, so that a file of any size needs memory for one of its rows.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import one_line
from harness.readers.files import Unreadable

BLOCK_BYTES = 2**20
MAX_ROW_BYTES = 64 * 2**20
"""Of one row."""
_BLANK = " \t\r\n"
_UNFINISHED = 16
"""Characters before the end of what is read, in which a fault may be that the rest is missing."""


def json_rows(stream: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSON file.

    Raises:
        Unreadable: it is no JSON, or is no list of objects; the message names the row.
    """
    return _Reader(stream, path).rows()


class _Reader:
    """The text that is not parsed yet, and where in the file it stands."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.position, self.ended = "", 0, False
        self.line, self.count = 1, 0
        self.wanted = BLOCK_BYTES

    def rows(self) -> Iterator[dict[str, Any]]:
        in_list = self._next() == "["
        if in_list:
            self.position += 1
        closed = False
        while (first := self._next()) is not None:
            if closed:
                raise self._fault("content", "more follows the end of its list")
            if in_list and first == "]":
                closed = True
                self.position += 1
                continue
            if first != "{":
                raise self._no_object(first)
            yield self._object()
            self.count += 1
            following = self._next()
            if in_list and following == ",":
                self.position += 1
                if self._next() == "]":
                    raise self._fault("content", "a comma stands before the end of its list")
            elif in_list and following not in ("]", None):
                raise self._fault("content", f"row {self.count - 1} is followed by no comma")
            elif not in_list and following == ",":
                raise self._fault("content", "a comma stands between its rows, but it is no list")
        if in_list and not closed:
            raise self._fault("cut off", "the end of its list is missing")

    def _object(self) -> dict[str, Any]:
        while True:
            try:
                found, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as fault:
                rest_missing = fault.msg.startswith("Unterminated string") or (
                    fault.pos >= len(self.text) - _UNFINISHED
                )
                if not rest_missing or self.ended:
                    cut = rest_missing and self.ended
                    line = self.line + self.text.count("\n", self.position, fault.pos)
                    said = f"row {self.count} is no JSON (line {line}: {fault.msg})"
                    raise self._fault("cut off" if cut else "content", said) from fault
                self._grow()
                continue
            except RecursionError as fault:
                raise self._fault("too deep", f"row {self.count} is nested too deeply") from fault
            except ValueError as fault:  # thousands of digits
                said = f"row {self.count} holds a number beyond reason ({one_line(fault)[:60]})"
                raise self._fault("content", said) from fault
            self._skip(end)
            self.wanted = BLOCK_BYTES
            assert isinstance(found, dict)
            return found

    def _grow(self) -> None:
        """Reads more of a row that is not whole: twice as much each time."""
        self.wanted *= 2
        if self.wanted > 2 * MAX_ROW_BYTES:
            limit = f"{MAX_ROW_BYTES / 2**20:,.0f} MiB"
            said = f"row {self.count} has more than {limit}: one huge object is no row"
            advice = "give a list of rows, or one row a line"
            raise Unreadable(self.path, "too large", said, advice)
        self._fill(self.wanted)

    def _fill(self, size: int) -> None:
        rest = self.text[self.position :]
        parts, missing = [rest], size - len(rest)
        while missing > 0 and not self.ended:
            block = self.stream.read(min(missing, BLOCK_BYTES))
            self.ended = not block
            try:
                parts.append(self.decoder.decode(block, final=self.ended))
            except UnicodeDecodeError as fault:
                byte = f"byte {fault.object[fault.start]:#04x} in or after row {self.count}"
                raise Unreadable(self.path, "no text", f"is no UTF-8 text ({byte})") from fault
            missing -= len(parts[-1]) if block else missing
        self.text, self.position = "".join(parts), 0

    def _next(self) -> str | None:
        """The next character that is not blank; None at the end."""
        while True:
            end = self.position
            while end < len(self.text) and self.text[end] in _BLANK:
                end += 1
            self._skip(end)
            if end < len(self.text):
                return self.text[end]
            if self.ended:
                return None
            self._fill(BLOCK_BYTES)

    def _skip(self, end: int) -> None:
        self.line += self.text.count("\n", self.position, end)
        self.position = end

    def _no_object(self, first: str) -> Unreadable:
        kinds = {'"': "a text", "[": "a list", "n": "null", "t": "true", "f": "false"}
        kind = kinds.get(first, "a number" if first in "-0123456789" else "no JSON")
        said = f"row {self.count} (line {self.line}) is {kind}, where an object with columns is due"
        return Unreadable(self.path, "content", said)

    def _fault(self, cause: Any, said: str) -> Unreadable:
        return Unreadable(self.path, cause, said)


_DECODER = json.JSONDecoder()
