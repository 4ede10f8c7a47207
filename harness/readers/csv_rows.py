"""Rows in CSV or TSV from outside: a header, then as many cells in each row; all are texts."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from harness.errors import one_line
from harness.readers.files import Unreadable

MAX_CELL = 64 * 2**20
"""Characters of a cell: a quote that is not closed would take the rest of the file."""
_SEPARATORS = ",\t;|"
_ADVICE = "correct the quoting (a cell with quotes, separators or line breaks stands in quotes)"


class CsvRows:
    """The rows of an open CSV file; its header is read at once.

    Raises:
        Unreadable: the header is none.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._path = path
        lines = _lines(stream, path)
        first = next(lines, "")
        separator = max(_SEPARATORS, key=first.count)
        csv.field_size_limit(MAX_CELL)
        self._reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
        header = self._next_row() or []
        names = [name.strip() for name in header]
        if len(twice := [name for name in names if name and names.count(name) > 1]):
            raise Unreadable(
                path, "content", f"has the column {one_line(twice[0])[:40]} twice", "rename one"
            )
        if not any(names):
            raise Unreadable(path, "content", "has no header: its first line names the columns")
        self.columns: Sequence[str] = [name for name in names if name]
        """Names, in order; a column without one, such as a number of the row, is not read."""
        self._names = names

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Yields rows; a line that is blank is none.

        Raises:
            Unreadable: a row has another number of cells, or its quoting is broken.
        """
        while (cells := self._next_row()) is not None:
            if not cells:
                continue
            if len(cells) != len(self._names):
                said = (
                    f"line {self._reader.line_num}: a row has {len(cells)} cells, the header "
                    f"{len(self._names)}"
                )
                raise Unreadable(self._path, "content", said, _ADVICE)
            yield {name: cell for name, cell in zip(self._names, cells, strict=True) if name}

    def _next_row(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as fault:
            said = f"line {self._reader.line_num}: is no CSV ({one_line(fault)})"
            raise Unreadable(self._path, "content", said, _ADVICE) from fault


def _lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Yields lines with their ends."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    number = 1
    try:
        while line := text.readline(MAX_CELL + 1):
            if len(line) > MAX_CELL:
                raise Unreadable(path, "too large", f"line {number} has no end")
            yield line
            number += 1
    except UnicodeDecodeError as fault:
        byte = f"byte {fault.object[fault.start]:#04x} in or after line {number}"
        raise Unreadable(path, "no text", f"is no UTF-8 text ({byte})") from fault
    finally:
        with contextlib.suppress(ValueError):  # it is closed
            text.detach()  # who opened the stream closes it
