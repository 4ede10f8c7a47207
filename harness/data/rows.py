"""The forms that a training row may have, named as TRL names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Instruction:
    """A row of Stanford Alpaca's form; `input` and `output` may be empty."""

    instruction: str
    input: str
    output: str

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        return self.instruction, self.input, self.output


@dataclass(frozen=True)
class Completion:
    """A prompt and what follows it; the completion alone is in the loss."""

    prompt: str
    completion: str

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        return {"prompt": self.prompt, "completion": self.completion}


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A conversation of one or more turns; those of the assistant alone are in the loss."""

    turns: tuple[Turn, ...]

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        return {"messages": [[turn.role, turn.content] for turn in self.turns]}


@dataclass(frozen=True)
class Text:
    """A plain text, all of which is in the loss."""

    text: str

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        return {"text": self.text}


Row = Instruction | Completion | Conversation | Text


def texts_of(row: Row) -> list[str]:
    """All texts of a row."""
    if isinstance(row, Conversation):
        return [turn.content for turn in row.turns]
    return list(vars(row).values())
