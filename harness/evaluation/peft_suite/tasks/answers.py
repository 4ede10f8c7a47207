"""How PEFT's method comparison reads an answer out of a text, and compares it with the due one."""

from __future__ import annotations

from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import Any

MARKS = (
    "The answer is: ",
    "The answer is ",
    "The final answer is: ",
    "The final answer is ",
    "#### ",
)
"""What goes before an answer; the first of these that a text holds counts, at its last place."""


def answer_of(text: str) -> str | None:
    """What follows the mark, up to the end of the line, without points and signs; None without."""
    text = text.strip().rstrip(".!?")
    mark = next((one for one in MARKS if one in text), None)
    if mark is None:
        return None
    return text.rpartition(mark)[2].strip().split("\n", 1)[0].strip(" .!?$%")


def number_of(answer: str | None) -> float | None:
    """The number that an answer is, a fraction too; None where it is none."""
    if answer is None:
        return None
    top, slash, bottom = answer.strip().partition("/")
    try:
        value = Decimal(top.strip())
        return float(value / Decimal(bottom.strip())) if slash else float(value)
    except (InvalidOperation, DivisionByZero, ValueError, OverflowError):
        return None


def is_right(text: str, target: str) -> bool:
    """Whether a text gives the target's answer: as numbers where both are some, else as texts.

    A number beside a text, such as 1000 beside 1,000, is wrong: so the comparison scores.
    """
    given, due = answer_of(text), answer_of(target)
    if given is None or due is None:
        return False
    one, other = number_of(given), number_of(due)
    return (given if one is None else one) == (due if other is None else other)


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The item's score; the question stands before the response, as the comparison reads both."""
    text = f"Question: {doc['question']} Think step by step.\nAnswer:{results[0]}"
    return {"exact_match": float(is_right(text, doc["answer"]))}
