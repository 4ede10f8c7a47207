"""Rows of any form as conversations."""

from __future__ import annotations

from harness.data.rows import Conversation, Instruction, Row, ScienceQuestion, Text, Turn
from harness.data.scienceqa import prompt_and_answer

ANSWERS = ("output", "completion")
"""Columns of what the assistant says."""


class RowFault(Exception):
    """Why a row cannot be put into a template, or its loss mask not be told."""


def turns_of(row: Row, system: str | None) -> list[Turn]:
    """A row as a conversation, up to the assistant's last turn; a system text of its own stays.

    Raises:
        RowFault: it is a plain text.
    """
    if isinstance(row, Text):
        raise RowFault("a plain text has no turns: leave `template` out")
    if isinstance(row, Conversation):
        turns = list(row.turns)
        while turns and turns[-1].role != "assistant":
            turns.pop()
        turns = turns or list(row.turns)
    elif isinstance(row, Instruction):
        asked = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
        turns = [Turn("user", asked), Turn("assistant", row.output)]
    elif isinstance(row, ScienceQuestion):
        asked, answer = prompt_and_answer(row)
        turns = [Turn("user", asked), Turn("assistant", answer.strip())]
    else:
        turns = [Turn("user", row.prompt), Turn("assistant", row.completion)]
    if system is not None and not any(turn.role == "system" for turn in turns):
        turns.insert(0, Turn("system", system))
    return turns


def columns_of(row: Row) -> dict[str, str]:
    """A row's texts by their column; none of a conversation, and of a question of ScienceQA."""
    if isinstance(row, Conversation | ScienceQuestion):
        return {}
    return {name: value for name, value in vars(row).items() if name != "image"}
