"""The scorer: a table with a case for each branch, and a second implementation."""

from __future__ import annotations

import difflib
import random
import re

import pytest

from harness.evaluation.paper.matching import Verdict, judge, response_of

FRUIT = ("apple", "banana", "cherry", "plum")

CASES = {
    # text, options, gold, right, prediction, several named, empty, right by the ratio alone
    "the gold, alone": ("banana", FRUIT, 1, True, 1, False, False, False),
    "another, alone": ("cherry", FRUIT, 1, False, 2, False, False, False),
    "in another case": ("BANANA", FRUIT, 1, True, 1, False, False, False),
    "in a sentence": ("It is the banana, I think.", FRUIT, 1, True, 1, False, False, False),
    "two options": ("banana or cherry", FRUIT, 1, False, None, True, False, False),
    "all options": ("apple banana cherry plum", FRUIT, 0, False, None, True, False, False),
    "the published oddity": ("10", ("0", "1", "10", "2"), 2, False, None, True, False, False),
    "an option inside another": ("pineapple", ("apple", "pineapple"), 1, False, None, True, False,
                                 False),
    "the final stop is optional": ("It floats", ("It sinks.", "It floats."), 1, True, 1, False,
                                   False, False),
    "only one stop is": ("It floats", ("It sinks.", "It floats..."), 1, True, 1, False, False,
                         True),
    "similar to the gold": ("bananna", FRUIT, 1, True, 1, False, False, True),
    "similar to another": ("chery", FRUIT, 1, False, 2, False, False, False),
    "ratios see the case": ("BANANNA", FRUIT, 1, False, None, False, False, False),
    "a tie goes to the first": ("ab", ("ac", "ad"), 0, True, 0, False, False, True),
    "a tie, and the gold comes second": ("ab", ("ac", "ad"), 1, False, 0, False, False, False),
    "empty": ("", FRUIT, 0, False, None, False, True, False),
    "white space": (" \n ", FRUIT, 0, False, None, False, True, False),
    "white space is compared too": (" ", ("a b", "cd"), 0, True, 0, False, True, True),
    "nothing in common": ("xyz", ("ab", "cd"), 0, False, None, False, False, False),
    # Named once though another is more similar: "abcdef" has more of the long response.
    "the gold is named, another more similar": ("xabx cdefgh", ("ab", "cdefghij"), 0, True, 0,
                                                False, False, False),
    "another is named, the gold more similar": ("xabx cdefgh", ("ab", "cdefghij"), 1, True, 1,
                                                False, False, False),
    "after the last mark": ("apple ### Response:cherry ### Response:banana", FRUIT, 1, True, 1,
                            False, False, False),
    "nothing after the mark": ("banana ### Response:", FRUIT, 1, False, None, False, True, False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    text, options, gold, right, prediction, several, empty, alone = CASES[name]
    assert judge(text, options, gold) == Verdict(
        right=right,
        prediction=prediction,
        several_named=several,
        empty=empty,
        ratio_alone=alone,
        gold_first=gold == 0,
    )


def test_the_response_follows_the_last_mark() -> None:
    assert response_of("a ### Response:b ### Response: c") == " c"
    assert response_of("no mark") == "no mark"


def described(text: str, options: tuple[str, ...], gold: int) -> bool:
    """The description, read anew: regular expressions, one pass, early returns."""
    answer = re.split(re.escape("### Response:"), text)[-1]
    patterns = [re.escape(re.sub(r"\.\Z", "", option)) + r"\.?" for option in options]
    hits = {i for i, each in enumerate(patterns) if re.search(each, answer, re.IGNORECASE)}
    if len(hits) >= 2:
        return False
    best, best_ratio = None, 0.0
    for i, option in enumerate(options):
        ratio = difflib.SequenceMatcher(a=option, b=answer).ratio()
        if ratio > best_ratio:
            best, best_ratio = i, ratio
    return best == gold or hits == {gold}


def generated(draw: random.Random) -> tuple[str, tuple[str, ...], int]:
    """A question and a response made of its options, of others, and of damage."""
    words = ("fox", "Fox.", "the fox", "10", "1", "0", "a b", "It rains.", "it", "rain", "(x)", "A")
    options = tuple(
        " ".join(draw.choices(words, k=draw.randint(1, 3))) + draw.choice(["", ".", ".."])
        for _ in range(draw.randint(2, 5))
    )
    parts = []
    for _ in range(draw.randint(0, 3)):
        part = draw.choice([*options, *words])
        if draw.random() < 0.5:
            at = draw.randrange(len(part))
            part = part[:at] + draw.choice(["", "z", " "]) + part[at + 1 :]
        parts.append(draw.choice([str.upper, str.lower, str, str.swapcase])(part))
    joined = draw.choice([" ", "", "\n", " or ", "### Response:"]).join(parts)
    return draw.choice(["", " ", "### Response:"]) + joined, options, draw.randrange(len(options))


def test_a_second_reading_of_the_description_agrees_on_10_000_responses() -> None:
    draw = random.Random(3)
    counts = dict.fromkeys(("right", "several_named", "empty", "ratio_alone", "gold_first"), 0)
    for _ in range(10_000):
        case = generated(draw)
        verdict = judge(*case)
        assert verdict.right == described(*case), case
        for name in counts:
            counts[name] += getattr(verdict, name)
        if verdict.right:
            assert verdict.prediction == case[2]
        if verdict.several_named:
            assert verdict.prediction is None
        assert not (verdict.ratio_alone and not verdict.right)
    assert min(counts.values()) > 300, counts  # every branch was taken many times
