"""Rows of ScienceQA as prompts, pictures and item records: what the task files call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data.scienceqa import LETTERS, scienceqa_prompt, scienceqa_response
from harness.evaluation.scienceqa.matching import RESPONSE_FLAGS, judge

Doc = Mapping[str, Any]

_BEFORE_LETTER, _ = scienceqa_response("|").split(" |")
"""` The answer is`: the official answer up to its letter."""


def prompt(doc: Doc) -> str:
    """The official prompt, QCM, up to `Answer:`."""
    return scienceqa_prompt(doc["question"], doc["hint"] or "", doc["choices"])


def prompt_before_letter(doc: Doc) -> str:
    """The official prompt and the beginning of the answer, ` The answer is`."""
    return prompt(doc) + _BEFORE_LETTER


def letters(doc: Doc) -> list[str]:
    """The letters of the options."""
    return list(LETTERS[: len(doc["choices"])])


def answer(doc: Doc) -> int:
    """The number of the right option, from 0."""
    return int(doc["answer"])


def response(doc: Doc) -> str:
    """The right answer as it is learned."""
    return scienceqa_response(LETTERS[answer(doc)])


def picture(doc: Doc) -> Any:
    """What the row holds of its picture; None where it has none, or the data lack it."""
    return doc.get("image")


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Whether the response is right, and its flags, each 0 or 1."""
    verdict = judge(results[0], doc["choices"], answer(doc))
    return {"acc": float(verdict.right)} | {
        name: float(getattr(verdict, name)) for name in RESPONSE_FLAGS
    }


def item_columns(doc: Doc, picture: str | None) -> dict[str, Any]:
    """What the official categories are made of; None where the row does not tell.

    Args:
        picture: of the item, by the SHA-256 of its bytes.
    """
    told = doc.get("has_image")
    return {
        "subject": doc.get("subject") or None,
        "grade": doc.get("grade") or None,
        "has_text": bool((doc["hint"] or "").strip()),
        "has_image": picture is not None if told is None else bool(told),
        "num_options": len(doc["choices"]),
    }
