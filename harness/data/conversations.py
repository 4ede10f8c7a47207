"""Conversations as OpenAI and ShareGPT write them, made into turns: roles, order and content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.data.rows import Conversation, Role, Turn
from harness.errors import one_line

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
TOOLS = {
    "tool",
    "tools",
    "function",
    "function_call",
    "function_response",
    "observation",
    "ipython",
}
WEIGHTS = ("weight", "loss_weight", "train")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Where a turn keeps what a template would write before its content."""


class BadRow(ValueError):
    """A row that cannot be trained on as it is; its text says why."""


def is_given(value: Any) -> bool:
    """Whether something is said; a missing number of a table is not."""
    return value not in (None, "", [], {}, "[]", "{}", "null") and value == value


def text_of(value: Any, name: str, *, keep: bool) -> str:
    """The text of a cell; `keep` takes what is none for an empty text, or for its JSON.

    Raises:
        BadRow: it is missing, null, NaN or no text.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRow(f"{name} is no valid Unicode") from None
        return value
    if value is None or value != value:
        if keep:
            return ""
        raise BadRow(f"{name} is {'null' if value is None else 'NaN'}")
    if keep:
        return json.dumps(value, ensure_ascii=False, default=str)
    kind = {bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    shown = one_line(json.dumps(value, ensure_ascii=False, default=str))[:40]
    raise BadRow(f"{name} is {kind.get(type(value), 'no text')} ({shown})")


def conversation_of(value: Any, record: Mapping[str, Any], *, keep: bool) -> Conversation:
    """The conversation of a row; a `system` column beside it is its first turn.

    Raises:
        BadRow: it is none, has tool calls, or its turns are out of order.
    """
    return with_system(turns_of(value, "messages", keep=keep), record, keep=keep)


def with_system(turns: list[Turn], record: Mapping[str, Any], *, keep: bool) -> Conversation:
    """The conversation of some turns; a `system` column beside them is its first turn.

    Raises:
        BadRow: its turns are out of order, or it has two system texts.
    """
    if is_given(record.get("system")):
        system = Turn("system", text_of(record["system"], "system", keep=keep))
        if turns[0].role == "system" and turns[0] != system:
            raise BadRow("has a system text, and another one in its first turn")
        turns = turns if turns[0] == system else [system, *turns]
    check_order(turns)
    return Conversation(tuple(turns))


def refuse_beside(record: Mapping[str, Any], *names: str) -> None:
    """Refuses what stands beside a row and would be lost.

    Raises:
        BadRow: there is such a thing.
    """
    for name in names:
        if is_given(record.get(name)):
            raise BadRow(f"has {name}, which a row of its form has no place for")


def turns_of(value: Any, name: str, *, keep: bool) -> list[Turn]:
    """The turns of a list of messages.

    Raises:
        BadRow: it is no such list.
    """
    if isinstance(value, str) and value[:1] == "[":  # of a table whose cells are texts
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow(f"{name} is a text, and no list of turns in JSON") from None
    if not isinstance(value, list):
        raise BadRow(f"{name} is {'null' if value is None else 'no list of turns'}")
    if not value:
        raise BadRow(f"{name} has no turns")
    return [_turn(entry, index, keep=keep) for index, entry in enumerate(value)]


def _turn(entry: Any, index: int, *, keep: bool) -> Turn:
    if not isinstance(entry, Mapping):
        raise BadRow(f"turn {index} is no object with role and content")
    said_by = entry.get("role") if is_given(entry.get("role")) else entry.get("from")
    content = entry["content"] if "content" in entry else entry.get("value")
    if str(said_by) in TOOLS or any(
        is_given(entry.get(key)) for key in ("tool_calls", "function_call")
    ):
        raise BadRow(f"turn {index} is a tool call or its answer ('{said_by}')")
    if not isinstance(said_by, str) or said_by not in ROLES:
        known = "system, user and assistant, or system, human and gpt"
        raise BadRow(f"turn {index} has the role {one_line(said_by)[:40]!r} (known: {known})")
    role = ROLES[said_by]
    if thought := next((key for key in THOUGHTS if is_given(entry.get(key))), None):
        raise BadRow(f"turn {index} has {thought}, which would be lost; put it into its content")
    for key in WEIGHTS:
        weight = entry.get(key)
        if weight is not None and bool(weight) != (role == "assistant"):
            raise BadRow(
                f"turn {index} has {key} {weight}, but the turns of the assistant, and they alone, "
                "are trained on"
            )
    return Turn(role, _content(content, index, keep=keep))


def _content(content: Any, index: int, *, keep: bool) -> str:
    name = f"the content of turn {index}"
    if not isinstance(content, list):
        return text_of(content, name, keep=keep)
    texts = []
    for part in content:  # OpenAI's typed parts
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            said = one_line(kind)[:40] if kind else "of no known type"
            raise BadRow(f"{name} has a part that is no text ({said})")
        texts.append(text_of(part.get("text", part.get("value")), name, keep=keep))
    return "".join(texts)


def check_order(turns: list[Turn]) -> None:
    """Checks that a user and an assistant take turns, and that the assistant has the last one.

    Raises:
        BadRow: they do not.
    """
    said = [turn.role for turn in turns]
    rest = said[1:] if said[0] == "system" else said
    for index, role in enumerate(rest, len(said) - len(rest)):
        due = ("user", "assistant")[(index - len(said) + len(rest)) % 2]
        if role != due:
            raise BadRow(f"turn {index} is the {role}'s, where the {due}'s is due")
    if not rest or rest[-1] != "assistant":
        raise BadRow("its last turn is not the assistant's: nothing would be learned from it")
