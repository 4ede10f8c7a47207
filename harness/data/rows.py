"""The forms that a training row may have, named as TRL names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from harness.readers.pictures import Picture

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Instruction:
    """A row of Stanford Alpaca's form; `input` and `output` may be empty."""

    instruction: str
    input: str
    output: str
    image: Picture | None = None

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        texts = self.instruction, self.input, self.output
        return texts if self.image is None else (*texts, self.image.sha256)


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


@dataclass(frozen=True)
class ScienceQuestion:
    """A question of ScienceQA's form: options of which one is right, and often a picture."""

    question: str
    choices: tuple[str, ...]
    answer: int
    """The right option, from 0."""
    hint: str = ""
    """The context; empty where there is none, as lecture and solution."""
    lecture: str = ""
    solution: str = ""
    image: Picture | None = None

    @property
    def content(self) -> Any:
        """What the row's identity is taken over."""
        stated = {name: value for name, value in vars(self).items() if value not in ("", None)}
        picture = {} if self.image is None else {"image": self.image.sha256}
        return stated | {"choices": list(self.choices)} | picture


Row = Instruction | Completion | Conversation | Text | ScienceQuestion


def texts_of(row: Row) -> list[str]:
    """All texts of a row."""
    if isinstance(row, Conversation):
        return [turn.content for turn in row.turns]
    if isinstance(row, Instruction):
        return [row.instruction, row.input, row.output]
    if isinstance(row, ScienceQuestion):
        return [row.question, row.hint, *row.choices, row.lecture, row.solution]
    return list(vars(row).values())


def picture_of(row: Row) -> Picture | None:
    """The picture that a row has."""
    return row.image if isinstance(row, Instruction | ScienceQuestion) else None
