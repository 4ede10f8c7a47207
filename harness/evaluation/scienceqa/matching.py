"""Reads the letter off a generated answer to a question of ScienceQA, as its authors do.

The official rule (lupantech/ScienceQA, MIT): the pattern must occur exactly once, and its letter
must be one of the question's options. Else the official scoring draws an option at random; here
such an answer is wrong, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.scienceqa import LETTERS

PATTERN = re.compile(r"The answer is ([A-Z]).")
RESPONSE_FLAGS = ("not_extracted",)
"""What is counted beside the score: fields of a Verdict."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and its flags."""

    right: bool
    prediction: int | None
    """The option that it names; None where none can be extracted."""
    not_extracted: bool
    """It names no option, or not exactly one, and is wrong for that."""


def extract(text: str, num_options: int) -> int | None:
    """The option that an answer names, from 0; None where the official rule finds none."""
    found = PATTERN.findall(text)
    if len(found) != 1:
        return None
    number = LETTERS.index(found[0])
    return number if number < num_options else None


def judge(text: str, options: Sequence[str], gold: int) -> Verdict:
    """The verdict on a generated answer; `gold` is the number of the right one of `options`."""
    prediction = extract(text, len(options))
    return Verdict(prediction == gold, prediction, prediction is None)
