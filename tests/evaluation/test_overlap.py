"""Which test items training rows hold, against a search word by word."""

from __future__ import annotations

import random

from harness.data.rows import Conversation, Instruction, Text, Turn
from harness.evaluation.overlap import WORDS, Asked, overlap_frame, training_text, words_of
from harness.readers.pictures import Picture


def found(rows: list, *questions: str) -> list[tuple[bool, bool]]:
    asked = [Asked("t", number, text) for number, text in enumerate(questions)]
    frame = overlap_frame(asked, training_text(rows))
    assert list(frame["doc_id"]) == list(range(len(questions)))
    return [(bool(a), bool(b)) for a, b in zip(frame["ngram"], frame["question"], strict=True)]


def test_words_are_those_of_the_source() -> None:
    assert words_of("Don't  stop,\nNOW (please)!") == ["dont", "stop", "now", "please"]


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not() -> None:
    long = " ".join(f"w{n}" for n in range(20))
    row = Instruction("Say.", long.upper().replace(" ", ", "), "yes")
    inside, short = " ".join(long.split()[3:16]), " ".join(long.split()[3:15])
    assert found([row], f"Why {inside}?", f"Why {short}?") == [(True, False), (False, False)]


def test_a_whole_question_is_found_however_short() -> None:
    rows = [
        Instruction("Who is she?", "", "Ann"),
        Instruction("Add.", "1 and 2", "3"),
        Conversation((Turn("user", "Why not?"), Turn("assistant", "Because."))),
        Text("Plain words."),
    ]
    asked = ["who is she", "Add. 1 and 2", "why not", "plain, words", "who is he", "?!"]
    assert [question for _, question in found(rows, *asked)] == [True] * 4 + [False] * 2


def test_a_question_about_a_picture_is_found_with_the_same_picture_alone() -> None:
    shown, other = Picture.of(b"one"), Picture.of(b"two")
    rows = [Instruction("What is it?", "", "A dog", shown), Instruction("Why?", "", "So.")]
    asked = [("What is it?", shown.sha256), ("What is it?", other.sha256), ("What is it?", None),
             ("Why?", None), ("Why?", shown.sha256)]  # fmt: skip
    items = [Asked("t", number, *one) for number, one in enumerate(asked)]
    frame = overlap_frame(items, training_text(rows))
    assert list(frame["question"]) == [True, False, False, True, False]


def test_no_row_is_joined_to_the_next() -> None:
    words = [f"w{n}" for n in range(WORDS)]
    rows = [Text(" ".join(words[:6])), Text(" ".join(words[6:]))]
    assert found(rows, " ".join(words)) == [(False, False)]
    assert found([], "anything", "") == [(False, False)] * 2


def test_the_hits_are_those_of_a_search_word_by_word() -> None:
    draw = random.Random(0)
    text = lambda size: " ".join(draw.choices("abc", k=size))  # noqa: E731
    rows = [Text(text(draw.randrange(40))) for _ in range(300)]
    questions = [text(draw.randrange(30)) for _ in range(200)]

    def grams(one: str) -> set[tuple[str, ...]]:
        words = one.split()
        return {tuple(words[n : n + WORDS]) for n in range(len(words) - WORDS + 1)}

    held = set().union(*(grams(row.text) for row in rows))
    expected = [bool(grams(question) & held) for question in questions]
    assert [ngram for ngram, _ in found(rows, *questions)] == expected
    assert any(expected)
    assert not all(expected)
