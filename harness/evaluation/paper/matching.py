"""Scores a free response to a multiple-choice question as the published measurement did.

The rule is kept with its oddities, which are counted: options {0, 1, 10, 2} and the answer "10"
name three options, so that the right answer is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

RESPONSE_MARK = "### Response:"

RESPONSE_FLAGS = ("several_named", "empty", "ratio_alone", "gold_first")
"""What is counted beside the score, in the order of printing: fields of a Verdict."""


@dataclass(frozen=True)
class Verdict:
    """Whether a response is right, and its flags."""

    right: bool
    prediction: int | None
    """The option that the rule takes the response for; None for none or several."""
    several_named: bool
    """It names more than one option, and is wrong for that."""
    empty: bool
    """It has no letter but white space."""
    ratio_alone: bool
    """It is right though it names no option: the gold is only the most similar one."""
    gold_first: bool
    """The right option stands in first place; ties go to the first."""


def response_of(text: str) -> str:
    """What follows the last mark; all of a text that has none."""
    return text.rpartition(RESPONSE_MARK)[2]


@lru_cache(maxsize=65536)
def judge(text: str, options: tuple[str, ...], gold: int) -> Verdict:
    """The verdict on a generated text.

    Args:
        text: with the prompt before it or without; what follows the last mark counts.
        options: as they stand in the prompt.
        gold: number of the right one.
    """
    response = response_of(text)
    letters = response.lower()
    named = [n for n, option in enumerate(options) if option.removesuffix(".").lower() in letters]
    several = len(named) > 1
    prediction = None if several else _prediction(named, _most_similar(options, response), gold)
    right = prediction == gold
    return Verdict(
        right=right,
        prediction=prediction,
        several_named=several,
        empty=not response.strip(),
        ratio_alone=right and not named,
        gold_first=gold == 0,
    )


def _prediction(named: list[int], similar: int | None, gold: int) -> int | None:
    """The most similar option, unless the gold is the only one named: either makes it right."""
    if similar is None or named == [gold]:
        return named[0] if named else None
    return similar


def _most_similar(options: Sequence[str], response: str) -> int | None:
    """The first option of the highest ratio; None where all are 0."""
    ratios = [SequenceMatcher(None, option, response).ratio() for option in options]
    highest = max(ratios)
    return ratios.index(highest) if highest > 0 else None
