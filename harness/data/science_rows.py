"""Questions of ScienceQA's form, made of the records of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.data.conversations import BadRow, text_of
from harness.data.rows import ScienceQuestion
from harness.data.scienceqa import LETTERS
from harness.errors import one_line
from harness.readers.pictures import Picture


def science_question(
    record: Mapping[str, Any], columns: Mapping[str, str], image: Picture | None
) -> ScienceQuestion:
    """The question of a record; a hint, lecture or solution that is null is empty.

    Args:
        columns: the record's column for each of the form's that is there.
        image: its picture.

    Raises:
        BadRow: it has no question, no options, or an answer that is none of them.
    """

    def value(name: str) -> Any:
        return record.get(columns.get(name, name)) if name in columns else None

    def text(name: str, *, may_lack: bool = False) -> str:
        found, column = value(name), columns.get(name, name)
        return "" if may_lack and found is None else text_of(found, column, keep=False)

    choices = value("choices")
    column = columns.get("choices", "choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise BadRow(f"{column} is no list of 2 to {len(LETTERS)} options ({_shown(choices)})")
    texts = tuple(text_of(one, f"an option of {column}", keep=False) for one in choices)
    answer = value("answer")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise BadRow(
            f"{columns.get('answer', 'answer')} is {_shown(answer)}, where the number of one of "
            f"its {len(texts)} options is due, from 0"
        )
    optional = {name: text(name, may_lack=True) for name in ("hint", "lecture", "solution")}
    return ScienceQuestion(text("question"), texts, answer, **optional, image=image)


def _shown(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str))[:40]
