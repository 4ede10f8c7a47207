"""A text as a model is given it: what is kept of the prompts, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.dataclasses import dataclass

LONGEST = 4000
"""Characters that are kept of a prompt: half of them of its beginning, half of its end."""

Piece = tuple[str, bool]
"""Text, and whether its tokens are in the loss, or scored."""


@dataclass(frozen=True)
class Prompt:
    """A text as a model is given it, special tokens included."""

    template: str
    """The template that it is in: `alpaca`, `chat`, `jinja` with the first digits of the file's
    SHA-256, or `none`."""
    pieces: tuple[Piece, ...]
    """The text in pieces, each with whether its tokens are in the loss, or are what is scored."""

    @property
    def text(self) -> str:
        """The text without marks."""
        return "".join(text for text, _ in self.pieces)


def shortened_prompt(prompt: Prompt, longest: int = LONGEST) -> Prompt:
    """A prompt whose middle is left out where it is longer than so many characters."""
    total = len(prompt.text)
    if total <= longest:
        return prompt
    half = longest // 2
    left_out = f"[... {total - 2 * half:,} characters ...]", False
    pieces = (*_span(prompt.pieces, 0, half), left_out, *_span(prompt.pieces, total - half, total))
    return Prompt(prompt.template, pieces)


def _span(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    found, place = [], 0
    for text, marked in pieces:
        part = text[max(start - place, 0) : max(end - place, 0)]
        place += len(text)
        if part:
            found.append((part, marked))
    return found


def agreement(training: str, evaluation: str, benchmark: str) -> str:
    """The sentence that says whether training and evaluation use the same template."""
    if training == evaluation:
        same = "no template" if training == "none" else f"the same template ({training})"
        return f"Training rows and the prompts of {benchmark} are in {same}."
    return (
        f"Training rows are in {_named(training)}, the prompts of {benchmark} in "
        f"{_named(evaluation)}: what is learned in one form is asked in another."
    )


def _named(template: str) -> str:
    return "no template" if template == "none" else f"the template {template}"
