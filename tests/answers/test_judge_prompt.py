"""The judge's prompt, and what counts as a verdict."""

from __future__ import annotations

import pytest

from harness.answers.judge_prompt import choice_of, judge_prompt


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The first is right.\n[[A]]", "A"),
        ("[[B]]", "B"),
        ("Neither.\n\n[[C]]\n", "C"),
        ("[[A]] it is, [[A]].", "A"),
        ("<think>[[B]]? No: [[A]].</think>\n[[C]]", "C"),
        ("", None),
        ("A", None),
        ("[A]", None),
        ("[[D]]", None),
        ("[[A]] or [[B]]", None),
        ("<think>[[B]] it seems", None),
        ("\n<Thinking>[[B]] it seems", None),
        ("What </think> is for: [[B]]", "B"),
        ("<think>no</think>The tag <think> is right. [[B]]", "B"),
    ],
)
def test_a_verdict_is_one_mark(text: str, choice: str | None) -> None:
    assert choice_of(text) == choice


def test_both_answers_and_the_request_stand_in_the_prompt_once_as_they_are() -> None:
    system, user = judge_prompt().messages("Say {hello}.", "first {answer_b} [[B]]", "second")
    assert user["content"].count("Say {hello}.") == 1
    assert user["content"].index("first {answer_b}") < user["content"].index("second")
    assert (system["role"], user["role"]) == ("system", "user")


def test_the_judge_answers_greedily() -> None:
    assert judge_prompt().body("m", "i", "a", "b")["temperature"] == 0


def test_identity_of_the_prompt_is_pinned() -> None:
    # Another text is another judge: verdicts in users' logs no longer count.
    assert judge_prompt().sha256[:16] == "6dc55f8eabfa9abc"
