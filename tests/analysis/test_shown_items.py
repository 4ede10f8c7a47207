"""What a cell answered, of every kind of record, as a reader sees it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.answers import ItemOutcome
from harness.analysis.item_texts import ItemText
from harness.analysis.shown_items import answer_text, shown_item

OPTIONS = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("record", "metric", "text"),
    [
        ({"prediction": 1, "acc": 1.0}, "acc", "green"),
        ({"prediction": 1, "prediction_norm": 2, "acc_norm": 1.0}, "acc_norm", "blue"),
        ({"prediction": 1, "prediction_norm": None, "acc": 1.0}, "acc", "green"),
        ({"response": "It is green.", "prediction": 1, "acc": 1.0}, "acc", "It is green."),
        ({"response": "", "prediction": None, "acc": 0.0}, "acc", "(empty)"),
        (
            {"response": "So 22.", "filtered": {"strict-match": "[invalid]", "flexible": "22"}},
            "exact_match,flexible",
            "22 (of: So 22.)",
        ),
        ({"loglikelihood": -12.5}, "word_perplexity", "log-likelihood -12.5"),
        ({"f1": 0.25}, "f1", "0.25"),
        ({}, "acc", ""),
    ],
)
def test_an_answer_is_a_response_or_a_choice_or_a_number(
    record: dict[str, Any], metric: str, text: str
) -> None:
    assert answer_text(record, metric, OPTIONS) == text


def test_seeds_that_answer_alike_stand_once() -> None:
    outcome = ItemOutcome(("t", 3, "q"), 2 / 3, 0.0, "first")
    first = [{"prediction": one, "gold": 0} for one in (0, 0, 1)]
    found = shown_item(outcome, ItemText("?", OPTIONS), first, first[:1], "acc")
    assert (found.gold, found.first_answers, found.second_answers) == (
        "red", "red (×2) | green (×1)", "red",
    )  # fmt: skip
    bare = shown_item(outcome, None, first, first[:1], "acc")
    assert (bare.question, bare.gold, bare.second_answers) == ("", "option 1", "option 1")


def test_several_right_answers_are_all_named() -> None:
    outcome = ItemOutcome(("t", 3, "q"), 0.2, 0.3, "second")
    found = shown_item(outcome, ItemText("?", OPTIONS), [{"gold": [0, 2]}], [], "acc")
    assert found.gold == "red / blue"


def test_the_texts_that_a_record_holds_are_shown() -> None:
    outcome = ItemOutcome(("t", 3, "q"), 1.0, 0.0, "first")
    record = {"question": "Which?", "options": list(OPTIONS), "target": "", "prediction": 1}
    found = shown_item(outcome, None, [record | {"gold": 1}], [record | {"prediction": 2}], "acc")
    assert (found.question, found.options, found.gold) == ("Which?", OPTIONS, "green")
    assert (found.first_answers, found.second_answers) == ("green", "blue")
