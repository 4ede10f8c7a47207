"""A table that is too wide or too long for its page, in parts: no column and no row is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from harness.report.render import Entry, Row, Table

LONGEST_WORD = 14
"""Characters of a word that is not broken."""
_ENDS = re.compile(r"(?<=[-_./,=+:;|)\]])(?=.)")


def pieces(word: str, longest: int = LONGEST_WORD) -> list[str]:
    """A long word in the pieces that it may be broken into: after a sign, or else anywhere."""
    if len(word) <= longest:
        return [word]
    parts: list[str] = []
    for part in _ENDS.split(word):
        if parts and len(parts[-1]) + len(part) <= longest:
            parts[-1] += part
        else:
            parts += [part[start : start + longest] for start in range(0, len(part), longest)]
    return parts


@lru_cache(maxsize=2**16)
def longest_piece(text: str) -> int:
    """Characters of the longest piece of a text that is never broken."""
    return max((len(piece) for word in text.split() for piece in pieces(word)), default=0)


def stacked(text: str, width: int = LONGEST_WORD) -> list[str]:
    """A text as short lines, words joined while they fit."""
    lines: list[str] = []
    for word in text.split():
        first, *others = pieces(word, width)
        if lines and len(lines[-1]) + 1 + len(first) <= width and not others:
            lines[-1] += f" {first}"
        else:
            lines += [first, *others]
    return lines or [""]


def divided(widths: Sequence[float], room: float) -> list[list[int]]:
    """Places of columns in parts that fit, as few and as even as may be; each has one at least."""
    chunks: list[list[int]] = [[]]
    for index, width in enumerate(widths):
        if chunks[-1] and sum(widths[other] for other in chunks[-1]) + width > room:
            chunks.append([])
        chunks[-1].append(index)
    even = -(-len(widths) // len(chunks))
    places = list(range(len(widths)))
    level = [places[start : start + even] for start in places[:: max(1, even)]]
    fits = all(sum(widths[index] for index in chunk) <= room for chunk in level)
    return level if level and fits else chunks


def wide_parts(table: Table, room: float, width_of: Callable[[Table, int], float]) -> list[Table]:
    """A table's columns of numbers divided so that each part fits; its texts stand in all.

    Args:
        table: what may be too wide.
        room: the width of the page.
        width_of: of a column, by its place, in the same unit.
    """
    texts, number = table.num_text_columns, len(table.header)
    widths = [width_of(table, index) for index in range(number)]
    chunks = divided(widths[texts:], room - sum(widths[:texts]))
    if len(chunks) == 1:
        return [table]
    kept = list(range(texts))
    parts = [
        replace(
            table,
            header=tuple(table.header[index] for index in shown),
            rows=tuple(
                replace(line, entries=tuple(line.entries[index] for index in shown))
                for line in table.rows
            ),
        )
        for chunk in chunks
        for shown in [[*kept, *(texts + place for place in chunk)]]
    ]
    return _numbered(parts)


def long_parts(table: Table, room: int, height_of: Callable[[Row], int]) -> list[Table]:
    """A table's rows divided, where blocks begin if need be; each part names its first block.

    Args:
        table: what may be too long.
        room: the lines of the page.
        height_of: of a row, in lines.
    """
    heights = [height_of(line) for line in table.rows]
    if sum(heights) <= room:
        return [table]
    parts: list[list[Row]] = [[]]
    used = 0
    for line, height in zip(table.rows, heights, strict=True):
        is_full = used + height > room or (line.starts_block and used > room * 2 // 3)
        if parts[-1] and is_full:
            parts.append([])
            used = 0
        parts[-1].append(line)
        used += height
    return _numbered([replace(table, rows=tuple(rows)) for rows in _named(parts)])


def _named(parts: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """Rows of parts, the first of each with the name of the block that it goes on with."""
    found, name = [], Entry("")
    for rows in parts:
        first = rows[0]
        if not first.entries[0].text and not first.starts_block:
            first = replace(first, entries=(name, *first.entries[1:]))
        found.append([first, *rows[1:]])
        name = next((line.entries[0] for line in reversed(found[-1]) if line.entries[0].text), name)
    return found


def _numbered(parts: Sequence[Table]) -> list[Table]:
    """Parts with names and titles of their own; what is said of all stands in the first."""
    total = len(parts)
    titled = [
        replace(part, title=f"{part.title} (part {number} of {total})")
        for number, part in enumerate(parts, 1)
    ]
    others = [
        replace(part, name=f"{part.name}-{number}of{total}", caption=(), notes=())
        for number, part in enumerate(titled[1:], 2)
    ]
    return [titled[0], *others]
