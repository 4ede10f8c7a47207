"""Verdicts of both orders, the judge's bias, and methods side by side."""

from __future__ import annotations

import math

import pytest

from harness.analysis.judgements import (
    UNASKED,
    UNREADABLE,
    JudgedPair,
    judgement_of,
    position_bias,
)


def pair(
    question: str, choices: str | tuple[str, str], method: str = "lora", **other: object
) -> JudgedPair:
    settings = {
        "model": "m",
        "share": "10%",
        "cell_id": method,
        "label": method,
        "seed": 0,
        "answer_length": 10,
    }
    settings |= {"reference_length": 12} | other
    return JudgedPair(method=method, question=question, choices=tuple(choices), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "preference"),
    [
        ("AB", 1.0),  # the answer wins, whichever place it has
        ("BA", 0.0),
        ("CC", 0.5),
        ("AA", 0.5),  # the first place wins
        ("BB", 0.5),
        ("AC", 0.5),  # better in one order alone
        ("CA", 0.5),
    ],
)
def test_a_pair_is_won_in_both_orders_or_not_at_all(choices: str, preference: float) -> None:
    assert pair("q", choices).preference == preference


@pytest.mark.parametrize("missing", [UNASKED, UNREADABLE])
def test_a_pair_without_both_verdicts_is_missing(missing: str) -> None:
    assert math.isnan(pair("q", ("A", missing)).preference)
    found = judgement_of("j", [pair("p", "AB"), pair("q", ("A", missing))])
    (method,) = found.methods
    assert (method.win.value, method.win.num_questions, method.num_unjudged) == (1.0, 1, 1)
    assert (found.num_unreadable, found.num_unasked) == (missing == UNREADABLE, missing == UNASKED)


def test_equal_answers_are_a_tie_that_no_judge_sees() -> None:
    alike = pair("q", (UNASKED, UNASKED), is_alike=True)
    found = judgement_of("j", [alike])
    assert found.methods[0].win.value == 0.5
    assert (found.num_unasked, found.bias.num_pairs, found.bias.share) == (0, 0, None)


def test_position_bias_is_the_share_that_turns() -> None:
    pairs = [pair(str(i), choices) for i, choices in enumerate(("AA", "AA", "BB", "AB", "CA"))]
    bias = position_bias([*pairs, pair("x", ("A", UNREADABLE))])
    assert (bias.num_pairs, bias.num_turned, bias.num_first, bias.num_second) == (5, 4, 2, 1)
    assert bias.share == pytest.approx(0.8)


def test_a_judge_that_always_takes_the_first_gives_no_winner() -> None:
    found = judgement_of("j", [pair(str(i), "AA") for i in range(10)])
    assert found.methods[0].win.value == 0.5
    assert found.bias.share == 1.0


def test_methods_of_one_model_are_paired_and_adjusted() -> None:
    wins = [pair(str(i), "AB" if i % 4 else "BA", "lora") for i in range(20)]
    losses = [pair(str(i), "BA" if i % 5 else "AB", "base", seed=None, share="") for i in range(20)]
    other = [pair(str(i), "AB", "lora", model="n") for i in range(20)]
    more = [pair(str(i), "AB", "lora", share="100%", seed=1) for i in range(20)]
    found = judgement_of("j", [*wins, *losses, *other])
    # Methods of two shares are no pair; the base model is one with either.
    shares = [
        (one.share, one.first, one.second)
        for one in judgement_of("j", [*wins, *losses, *more]).paired
    ]
    assert shares == [("10%", "lora", "base"), ("100%", "base", "lora")]
    (paired,) = found.paired
    assert (paired.model, paired.first, paired.second) == ("m", "lora", "base")
    assert paired.estimate.value == pytest.approx(0.75 - 0.2)
    assert paired.p_holm == pytest.approx(paired.estimate.p_value)
    assert [one.model for one in found.methods] == ["m", "m", "n"]


def test_lengths_are_means_over_all_answers() -> None:
    pairs = [pair("p", "AB", answer_length=10), pair("q", "BA", answer_length=30)]
    (method,) = judgement_of("j", pairs).methods
    assert (method.mean_length, method.mean_reference_length) == (20, 12)
