"""Characters of private use that mark places in a text while a template writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]
"""First character, and one past the last."""
OPEN, CLOSE = "\U000ff1a0", "\U000ff1a1"
"""Around what a template marks by `{% generation %}`."""
BREAK = "\U000ff1a2"
"""Inside of a special token that a row's text spells."""
HEARD, SAID = "\U000ff1a3", "\U000ff1a4"
"""Behind what the assistant is told; behind what it says."""
MARKS = re.compile(f"[{OPEN}-{SAID}]")


@dataclass(frozen=True)
class MarkedText:
    """A text without the characters of private use, and where they stood."""

    text: str
    marks: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, written: str) -> MarkedText:
        """A text as a template wrote it, marks and all."""
        marks = tuple(
            (found[0], found.start() - number)
            for number, found in enumerate(MARKS.finditer(written))
        )
        return cls(MARKS.sub("", written), marks)

    def places(self, mark: str) -> list[int]:
        """The places of one mark, as numbers of characters."""
        return [place for own, place in self.marks if own == mark]

    def without(self, *marks: str) -> MarkedText:
        """The same without some of the marks."""
        return MarkedText(self.text, tuple(one for one in self.marks if one[0] not in marks))


def end_mark(says: bool) -> str:
    """The mark behind a text that the assistant says, or is told."""
    return SAID if says else HEARD


def any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern of tokens, longer ones first; of no tokens one that matches nothing."""
    longest = sorted(filter(None, tokens), key=lambda token: (-len(token), token))
    return re.compile(f"(?:{'|'.join(map(re.escape, longest))})" if longest else "(?!)")


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, those that touch as one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found
