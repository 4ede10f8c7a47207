"""A row put into a chat template or a Jinja file, and which of its characters are in the loss.

What the assistant says is found by characters of private use that are put behind every text of the
row: the template moves them with the texts. In the loss is what the model writes itself when it is
asked: all that follows the template's generation prompt, up to the end-of-turn token. Where the
template marks that by `{% generation %}`, its marks count. No torch and no transformers here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from harness.data.jinja import TemplateRefusal, fill, names_in
from harness.data.marks import (
    BREAK,
    CLOSE,
    HEARD,
    MARKS,
    OPEN,
    SAID,
    MarkedText,
    Span,
    any_of,
    end_mark,
    joined,
)
from harness.data.rows import Row, Text, Turn
from harness.data.turns import ANSWERS, RowFault, columns_of, turns_of

_ALWAYS = ("add_generation_prompt", "tools", "documents")
"""What a template may name beside a row's texts and the named tokens."""
T = TypeVar("T")


@dataclass(frozen=True)
class ControlTokens:
    """The tokens that a template writes and a row's text may not."""

    named: Mapping[str, str]
    """bos_token, eos_token and their like: what a template may name."""
    special: frozenset[str]
    added: frozenset[str] = frozenset()
    """All that are matched before a text is split, special or not."""


@dataclass(frozen=True)
class Rendering:
    """A row as text."""

    text: str
    """Up to the last character in the loss; whole where none is."""
    spans: tuple[Span, ...]
    """What is in the loss: the assistant's turns with their end-of-turn tokens."""
    breaks: tuple[int, ...] = ()
    """Places inside of special tokens that a row's text spells."""
    is_closed: bool = True
    """Whether it ends with a token that ends the turn, so that no EOS follows."""


class RowTemplate:
    """A template, filled with rows.

    Args:
        source: the Jinja text.
        tokens: the tokenizer's.
        system: the system text of rows without one.
        is_chat: whether it is a tokenizer's chat template, which sees messages alone.
    """

    def __init__(
        self, source: str, tokens: ControlTokens, system: str | None = None, *, is_chat: bool = True
    ) -> None:
        self.source, self.tokens, self.system, self.is_chat = source, tokens, system, is_chat
        self._tails: dict[object, str] = {}

    def check(self, row: Row) -> None:
        """Fills the template with a row, and no more: a fraction of `rendering`'s time.

        Raises:
            RowFault: the template refuses it.
            DataError: the template is none.
        """
        self._filled(row, self._write)

    def rendering(self, row: Row) -> Rendering:
        """A row as text, with its parts in the loss.

        Raises:
            RowFault: the template refuses it, or what of it is the assistant's cannot be told.
            DataError: the template is none.
        """
        return self._filled(row, self._rendering)

    def _filled(self, row: Row, fill_in: Callable[[Sequence[Turn], Mapping[str, str]], T]) -> T:
        texts = {} if self.is_chat else columns_of(row)
        turns = [] if isinstance(row, Text) and not self.is_chat else turns_of(row, self.system)
        if MARKS.search("".join([*texts.values(), *(turn.content for turn in turns)])):
            raise RowFault("holds characters of private use from U+FF1A0 on; remove them")
        if not self.is_chat:
            self._check_names(texts)
        try:
            return fill_in(turns, texts)
        except TemplateRefusal as refusal:
            raise RowFault(f"the template refuses it: {refusal}") from refusal

    def _check_names(self, columns: Mapping[str, str]) -> None:
        given = {*columns, "messages"} if "text" not in columns else {"text"}
        names = names_in(self.source)
        other = names - given - {*_ALWAYS, *self.tokens.named}
        if self.system is not None and "messages" not in names:
            raise RowFault("`system` has no place in this template, which names no messages")
        if other or not names & given:
            found = f"names {', '.join(sorted(other))}" if other else "names nothing of it"
            raise RowFault(f"the template {found}; a row has {', '.join(sorted(given))}")

    def _rendering(self, turns: Sequence[Turn], columns: Mapping[str, str]) -> Rendering:
        written = MarkedText.of(self._write(turns, columns))
        ends = MarkedText.of(self._write(turns, columns, ends=True))
        said = [turn.content for turn in turns if turn.role == "assistant"]
        if ends.without(HEARD, SAID) != written or len(ends.places(SAID)) != len(said):
            ends = MarkedText(written.text, ())  # the template looks at the ends of texts
        spans: list[Span] | None
        if written.places(OPEN):
            spans = list(zip(written.places(OPEN), written.places(CLOSE), strict=True))
        elif not turns:
            spans = [(0, len(written.text))]
        else:
            spans = self._unmarked(turns, columns, ends) if ends.marks else None
            spans = self._by_prefixes(turns, columns, written) if spans is None else spans
        spans = joined(self._with_end(written, span) for span in spans)
        if turns:
            _check_said(written, ends, spans, said)
        for turn in turns:
            # A Jinja file may leave out what a row says of itself.
            due = turn.role == "system" and (self.is_chat or turn.content == self.system)
            if due and turn.content.strip() not in written.text:
                raise RowFault("the template leaves the system text out")
        size = spans[-1][1] if spans else len(written.text)
        breaks = tuple(place for place in written.places(BREAK) if place < size)
        closed = self._closing.search(written.text[:size])
        is_closed = closed is not None and self._end_token in self._all_tokens
        is_closed &= closed is None or not any(closed.start() < one < size for one in breaks)
        return Rendering(written.text[:size], tuple(spans), breaks, is_closed)

    def _write(
        self,
        turns: Sequence[Turn],
        columns: Mapping[str, str],
        *,
        asks: bool = False,
        ends: bool = False,
        protected: re.Pattern[str] | None = None,
    ) -> str:
        """The template's text; it `asks` for what the assistant says next, or holds it all."""
        protected = protected or self._protected

        def marked(text: str, mark: str) -> str:
            text = protected.sub(lambda found: f"{found[0][0]}{BREAK}{found[0][1:]}", text)
            body = text.rstrip()
            return f"{body}{mark}{text[len(body) :]}" if ends and (text or mark == SAID) else text

        return fill(
            self.source,
            {
                **self.tokens.named,
                "tools": None,
                "documents": None,
                "messages": [
                    {"role": t.role, "content": marked(t.content, end_mark(t.role == "assistant"))}
                    for t in turns
                ],
                "add_generation_prompt": asks,
            }
            | {
                name: "" if asks and name in ANSWERS else marked(text, end_mark(name in ANSWERS))
                for name, text in columns.items()
            },
        )

    def _unmarked(
        self, turns: Sequence[Turn], columns: Mapping[str, str], ends: MarkedText
    ) -> list[Span] | None:
        """What the assistant says, from the places where texts end; None where they do not tell."""
        spans: list[Span] = []
        places = [(mark, place) for mark, place in ends.marks if mark in (HEARD, SAID)]
        answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        for number, (mark, place) in enumerate(places):
            if mark != SAID:
                continue
            before = places[number - 1][1] if number else 0
            index = answers[len(spans)]
            if index or not self.is_chat:
                tail = self._common(self._tail(turns[:index], columns), ends.text[before:place])
                start = before if tail is not None else -1
            else:
                tail = self._generation_prompt
                start = ends.text.find(tail, 0, place) if tail else -1
            if start < 0 or tail is None:
                return None
            content = turns[index].content
            blanks = content[len(content.rstrip()) :]  # behind the mark, where they are kept
            kept = len(blanks) if ends.text.startswith(blanks, place) else 0
            spans.append((start + len(tail), place + kept))
        return spans

    def _common(self, tail: str, text: str) -> str | None:
        """How much of what asks for a turn stands before it in a whole text.

        All of it, or, where it opens a thought that the turn need not have, up to the last token or
        line that both have; None where that is nothing.
        """
        if text.startswith(tail):
            return tail
        common = os.path.commonprefix((tail, text))
        ends = [found.end() for found in any_of({"\n", *self._all_tokens}).finditer(common)]
        return common[: ends[-1]] if ends else None

    @cached_property
    def _generation_prompt(self) -> str:
        """What a chat template adds where it asks; nothing where it adds nothing."""
        asked = [Turn("user", "a")]
        whole, part = (self._write(asked, {}, asks=asks) for asks in (True, False))
        return whole.removeprefix(part) if whole.startswith(part) else ""

    def _tail(self, turns: Sequence[Turn], columns: Mapping[str, str]) -> str:
        """What the template writes behind the last text, where it asks for the assistant's next."""
        last = turns[-1].content if turns else ""
        key = tuple(turn.role for turn in turns), last[len(last.rstrip()) :]
        if self.is_chat and key in self._tails:
            return self._tails[key]
        written = MarkedText.of(self._write(turns, columns, asks=True, ends=True))
        ends = [place for mark, place in written.marks if mark in (HEARD, SAID)]
        tail = written.text[ends[-1] if ends else 0 :]
        self._tails[key] = tail
        return tail

    def _by_prefixes(
        self, turns: Sequence[Turn], columns: Mapping[str, str], written: MarkedText
    ) -> list[Span]:
        """What the assistant says, as what the text has more than the one that asks for it."""
        spans: list[Span] = []
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            if not index and self.is_chat:
                raise RowFault("the conversation begins with the assistant: say whom it answers")
            asked = MarkedText.of(self._write(turns[:index], columns, asks=True)).text
            whole = MarkedText.of(self._write(turns[: index + 1], columns)).text.rstrip()
            if not written.text.startswith(asked) or not written.text.startswith(whole):
                raise RowFault(
                    f"what the assistant says in turn {index} cannot be told from the rest of the "
                    "text; mark it in the template by {% generation %} ... {% endgeneration %}"
                )
            spans.append((len(asked), len(whole)))
        return spans

    def _with_end(self, written: MarkedText, span: Span) -> Span:
        """A span with the end-of-turn token that follows it, where it does not hold it."""
        breaks = written.places(BREAK)
        held = self._closing.search(written.text, *span)
        if held is not None and not any(held.start() < one < held.end() for one in breaks):
            return span
        found = self._ending.match(written.text, span[1])
        if found is None or any(found.start() < one < found.end() for one in breaks):
            return span
        return span[0], found.end()

    @cached_property
    def _end_token(self) -> str:
        """What the template writes behind the assistant's last turn: a token, or else its text.

        EOS where it writes nothing.
        """
        turns, columns = [Turn("user", "a"), Turn("assistant", "b")], {"output": "b"}
        columns |= {"instruction": "a", "input": "", "prompt": "a", "completion": "b"}
        eos = self.tokens.named.get("eos_token", "")
        try:
            written = MarkedText.of(self._write(turns, columns, ends=True, protected=any_of(())))
        except TemplateRefusal:
            return eos
        behind = written.text[written.places(SAID)[-1] :].strip() if written.places(SAID) else ""
        found = any_of(self._all_tokens).match(behind)
        return found[0] if found else behind or eos

    @property
    def _all_tokens(self) -> frozenset[str]:
        named = filter(None, self.tokens.named.values())
        return self.tokens.special | self.tokens.added | frozenset(named)

    @cached_property
    def _protected(self) -> re.Pattern[str]:
        """What a row's text may spell, but not be: special tokens."""
        named = filter(None, self.tokens.named.values())
        end = {self._end_token} & self._all_tokens
        return any_of({*self.tokens.special, *named, *end})

    @cached_property
    def _ending(self) -> re.Pattern[str]:
        return re.compile(rf"\s*{any_of([self._end_token]).pattern}")

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        return re.compile(rf"{any_of([self._end_token]).pattern}\Z")


def _check_said(
    written: MarkedText, ends: MarkedText, spans: Sequence[Span], said: Sequence[str]
) -> None:
    """Checks that what is in the loss is what the assistant says, each turn whole.

    A template may leave out thoughts of earlier turns.

    Raises:
        RowFault: it is more, or less.
    """
    places = ends.places(SAID)
    start = 0
    for number, content in enumerate(said):
        words = content.rsplit("</think>", 1)[-1].strip()
        if places:
            place = places[number]
            own = next((one for one in spans if one[0] <= place <= one[1]), None)
            spelled = "" if own is None else written.text[own[0] : place]
            fits = own is not None and spelled.rstrip().endswith(words)
        else:
            own = next((one for one in spans[start:] if words in written.text[slice(*one)]), None)
            fits, start = own is not None, start + 1
        if words and not fits:
            raise RowFault(
                f"what is in the loss is not what the assistant says ({content.strip()[:40]!r}): "
                "the template leaves it out, changes it, or marks something else"
            )
    for place in ends.places(HEARD):
        if any(first < place <= last for first, last in spans):
            raise RowFault("the template marks more than what the assistant says as its part")
