"""Rows read without lm-eval name the items as lm-eval's task objects do."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.item_texts import loaded_texts, stored_texts, text_of, texts_of
from harness.demo.world import DATA
from harness.evaluation.tasks import LocalFile, TaskSpec
from tests.fixtures.own_study import write_study

FILES = {
    "capitals": ("test", "capitals.jsonl"),
    "gsm8k": ("test", "gsm8k/test.jsonl"),
    "winogrande": ("validation", "winogrande/validation.jsonl"),
    "wikitext": ("test", "wikitext/test.jsonl"),
}


@pytest.mark.parametrize(
    "name", ["demo_arc_easy", "demo_hellaswag", "demo_mmlu", "demo_paper_mmlu"]
)
def test_the_items_of_shipped_benchmarks_have_the_names_of_the_records(name: str) -> None:
    task = TaskSpec(name=name)
    stored, loaded = stored_texts(task, DATA), loaded_texts(task, DATA)
    assert stored.keys() == loaded.keys()
    for key, text in stored.items():
        assert text.question.splitlines()[-1] in loaded[key].question
        if not name.startswith("demo_paper"):
            assert text.options == loaded[key].options or name == "demo_mmlu"  # A, B, C, D


@pytest.mark.parametrize("name", FILES)
def test_so_do_those_of_tasks_that_lm_eval_alone_knows(name: str, tmp_path: Path) -> None:
    write_study(tmp_path)
    split, file = FILES[name]
    named = LocalFile(task=name, split=split, path=str(tmp_path / file))
    include = str(tmp_path / "my_tasks") if name == "capitals" else None
    task = TaskSpec(include=include, name=name, shots=0, files=(named,))
    stored, loaded = stored_texts(task, None), loaded_texts(task, None)
    assert stored.keys() == loaded.keys() != set()
    assert all(text.question for text in stored.values())


def test_items_that_are_not_there_are_told_and_not_guessed() -> None:
    task = TaskSpec(name="demo_arc_easy")
    texts, problem = texts_of(task, DATA, [("demo_arc_easy", 0, "another")])
    assert text_of(texts, ("demo_arc_easy", 0, "another")) is None
    assert problem == f"the items under {DATA} are others"
    assert stored_texts(task, Path("/nowhere")) == {}
