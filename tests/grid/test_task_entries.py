"""Benchmarks in a grid file: lm-eval's names, tags, a folder of one's own, local data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GridError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec
from tests.fixtures.own_study import CAPITALS_TASK
from tests.grid.test_loader import grid_with


def grid_of(folder: Path, **keys: Any) -> GridSpec:
    return resolve_grid(grid_with(keys), place="g.yaml", folder=folder)


def faults_of(folder: Path, **keys: Any) -> tuple[str, ...]:
    with pytest.raises(GridError) as caught:
        grid_of(folder, **keys)
    return caught.value.faults


def names_of(grid: GridSpec) -> list[str]:
    return [task.name for task in grid.blocks[0].tasks]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_tasks").mkdir()
    (tmp_path / "my_tasks" / "capitals.yaml").write_text(CAPITALS_TASK)
    row = {"country": "Arvia", "capital": "Lomen", "options": ["Lomen", "Pavo"]}
    (tmp_path / "capitals.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_a_tag_and_a_group_without_a_score_stand_for_their_members(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, tasks=["arc_easy", "math_word_problems", "winogrande"])
    names = names_of(grid)
    assert names[0] == "arc_easy"
    assert names[-1] == "winogrande"
    assert {"gsm8k", "gsm8k_cot_zeroshot", "mathqa"} < set(names)
    assert "math_word_problems" not in names


def test_settings_of_a_tag_are_those_of_its_members(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, tasks=[{"name": "math_word_problems", "limit": 3}])
    assert {task.limit for task in grid.blocks[0].tasks} == {3}


def test_a_task_of_ones_own_and_its_file(folder: Path) -> None:
    grid = grid_of(
        folder,
        include="my_tasks",
        local_data={"capitals": {"test": "capitals.jsonl"}},
        tasks=["capitals", "arc_easy"],
    )
    capitals, arc = grid.blocks[0].tasks
    assert capitals.benchmark.metrics == ("acc", "acc_norm")
    assert capitals.file("capitals", "test") == str(folder / "capitals.jsonl")
    assert arc == grid_of(folder, tasks=["arc_easy"]).blocks[0].tasks[0]


def test_a_file_that_is_not_beside_the_grid_is_meant_under_the_data_root(folder: Path) -> None:
    grid = grid_of(
        folder, local_data={"gsm8k": {"train": "a.jsonl", "test": "b.jsonl"}}, tasks=["gsm8k"]
    )
    assert grid.blocks[0].tasks[0].file("gsm8k", "test") == "b.jsonl"


def test_what_is_wrong_is_told_in_a_line_each(folder: Path) -> None:
    (folder / "my_tasks" / "broken.yaml").write_text("task: [")
    (folder / "my_tasks" / "nameless.yaml").write_text("output_type: multiple_choice")
    lines = faults_of(folder, include="my_tasks", tasks=["capitals"])
    assert any("broken.yaml: is no YAML" in line for line in lines)
    assert any("nameless.yaml: names neither a task nor a group" in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tasks": ["capitols"], "include": "my_tasks"}, "did you mean 'capitals'"),
        ({"tasks": ["gsm9k"]}, "tasks[0]: no such task 'gsm9k'; did you mean 'gsm8k' of lm-eval"),
        ({"include": "nothing", "tasks": ["arc_easy"]}, "include: no folder "),
        ({"tasks": ["gsm8k"], "local_data": {"gsm8": {"test": "x"}}}, "local_data.gsm8: no task"),
        ({"tasks": ["gsm8k"], "local_data": {"gsm8k": "x"}}, "local_data.gsm8k: must be a mapping"),
        ({"tasks": ["humaneval"]}, "humaneval runs the code that a model writes: set"),
        ({"tasks": ["common_voice_en"]}, "plays sound to a model (doc_to_audio)"),
        ({"tasks": ["squadv2"]}, "'squadv2' is a Python class of its own"),
        ({"tasks": [{"name": "gsm8k", "files": []}]}, "'files' is a key of the grid"),
        ({"tasks": [{"name": "gsm8k", "fewshot_as_multiturn": True}]}, "needs 'apply_chat_templ"),
        ({"tasks": [{"name": "truthfulqa_gen", "shots": 2}]}, "takes no few-shot examples"),
        ({"tasks": [{"name": "winogrande", "temperature": 1}]}, "generates nothing: remove"),
        ({"tasks": ["gsm8k", "gsm8k"]}, "'gsm8k' stands 2 times; keep one"),
    ],
)
def test_a_fault_is_one_line_with_what_to_do(folder: Path, keys: Any, said: str) -> None:
    lines = faults_of(folder, **keys)
    assert any(said in line for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_code_of_a_model_runs_where_the_grid_allows_it(tmp_path: Path) -> None:
    tasks = ["humaneval", "arc_easy"]
    human, arc = grid_of(tmp_path, allow_code_execution=True, tasks=tasks).blocks[0].tasks
    assert human.allow_code_execution
    assert not arc.allow_code_execution
    assert human.benchmark.metrics == ("pass@1,create_test",)
