"""How PEFT's comparison reads and compares answers; its task beside lm-eval's own gsm8k."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import harness
from harness.evaluation.own_benchmarks import find_benchmark

FOLDER = Path(harness.__file__).parent / "evaluation" / "peft_suite" / "tasks"


@pytest.fixture(scope="module")
def answers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("answers", FOLDER / "answers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is 2. The answer is: 16", "16"),
        ("The answer is: 16.", "16"),
        ("The answer is: 1\nThe answer is: 2", "2"),
        ("The answer is 7. The answer is: 8", "8"),  # the first of the marks, at its last place
        ("The final answer is: $50%!", "50"),
        ("#### 1,000", "1,000"),
        ("#### 3\n\nQuestion: another", "3"),
        ("It is 16.", None),
        ("", None),
    ],
)
def test_the_answer_follows_the_mark(answers: ModuleType, text: str, answer: str | None) -> None:
    assert answers.answer_of(text) == answer


@pytest.mark.parametrize(
    ("given", "due", "right"),
    [
        ("16", "16", True),
        ("16.0", "16", True),
        ("20/14", "10/7", True),
        ("50%", "50", True),
        ("1,000", "1,000", True),
        ("1000", "1,000", False),  # as the comparison scores: a number beside a text
        ("1/0", "1/0", True),  # no numbers, and the same text
        ("x", "16", False),
        ("16", "17", False),
    ],
)
def test_answers_are_compared_as_numbers_where_both_are(
    answers: ModuleType, given: str, due: str, right: bool
) -> None:
    assert answers.is_right(f"The answer is: {given}", f"#### {due}") == right
    assert not answers.is_right(given, f"#### {due}")  # no mark


def test_an_item_is_read_with_its_question(answers: ModuleType) -> None:
    doc = {"question": "How many?", "answer": "One and one.\n#### 2"}
    assert answers.process_results(doc, [" It is two. The answer is: 2"]) == {"exact_match": 1.0}
    assert answers.process_results(doc, [" It is two."]) == {"exact_match": 0.0}


@pytest.mark.parametrize("name", ["peft_gsm8k", "peft_gsm8k_sampled"])
def test_the_tasks_are_benchmarks(name: str) -> None:
    found = find_benchmark(name, str(FOLDER))
    assert found is not None
    assert found.decoding is not None
    assert found.decoding.max_new_tokens == 300
    assert (found.decoding.temperature > 0) == (name == "peft_gsm8k_sampled")
    assert (found.shots, list(found.kinds)) == (0, ["exact_match"])
    assert found.kinds["exact_match"].unit is None
