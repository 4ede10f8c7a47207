"""Captions of a page: within a section each sentence stands once. The files each stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.report.figures import Drawing
from harness.report.render import Table

REST = "Else as above."
"""Stands for the sentences that were said before."""


class Captions:
    """What the captions of a section have said so far."""

    def __init__(self, said: Iterable[str] = ()) -> None:
        """`said`: texts that no section says again."""
        self._before = frozenset(part for text in said for part in _sentences(text))
        self._said: set[str] = set()

    def of_table(self, table: Table) -> Table:
        """The table with what its notes and caption say anew."""
        notes, caption = self._new(table.notes), self._new(table.caption)
        new = {*_all(notes), *_all(caption)}
        rest = {*_all(table.notes), *_all(table.caption)} - new - self._before
        return replace(table, notes=notes, caption=(*caption, *[REST] * bool(rest)))

    def of_drawing(self, drawing: Drawing) -> Drawing:
        """The figure with what its caption says anew."""
        (caption,) = self._new([drawing.caption]) or ("",)
        rest = {*_sentences(drawing.caption)} - {*_sentences(caption)} - self._before
        return replace(drawing, caption=" ".join([caption, *[REST] * bool(rest)]).strip())

    def has_said(self, text: str) -> bool:
        """Whether all of a text was said."""
        return self._said.issuperset(_sentences(text))

    def _new(self, texts: Sequence[str]) -> tuple[str, ...]:
        found = []
        for text in texts:
            new = [part for part in _sentences(text) if part not in self._said | self._before]
            self._said |= set(new)
            found.append(" ".join(new))
        return tuple(filter(None, found))


def _all(texts: Iterable[str]) -> set[str]:
    return {part for text in texts for part in _sentences(text)}


def _sentences(text: str) -> list[str]:
    """A text cut behind its full stops."""
    return re.split(r"(?<=[a-z0-9)%]\.) (?=\S)", text)
