"""Names are found where lm-eval finds them, without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from harness.evaluation import task_files
from harness.evaluation.own_benchmarks import find_benchmark, members_of
from harness.evaluation.task_index import find_definition, index_of_folder, lm_eval_index
from harness.evaluation.task_tree import TreeFault, tree_of


@pytest.mark.slow
def test_every_name_is_where_lm_eval_has_it() -> None:
    theirs = TaskManager().task_index
    assert set(lm_eval_index()) == set(theirs)
    for name, entry in theirs.items():
        found = find_definition(name)
        assert found is not None
        if entry.kind is Kind.TAG:
            assert set(found.members) == entry.tags
        else:
            assert found.path == entry.yaml_path
            assert (found.kind == "group") == (entry.kind is Kind.GROUP)


def test_looking_a_name_up_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.evaluation.tasks import TaskSpec; "
        "TaskSpec(name='mmlu_pro'); "
        "print(*{'torch', 'transformers', 'lm_eval', 'datasets', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_index_is_kept_until_another_lm_eval_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text("task: a\ntag: [t]\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.evaluation.task_index.folder_of", lambda _place: folder)
    assert dict(lm_eval_index.__wrapped__()) == {"a": "task:a.yaml", "t": ["a"]}
    (folder / "a.yaml").write_text("task: b\n")
    assert "a" in lm_eval_index.__wrapped__()
    monkeypatch.setattr("harness.evaluation.task_index.version", lambda _name: "9.9")
    task_files.read_task.cache_clear()
    task_files._read_alone.cache_clear()
    assert dict(lm_eval_index.__wrapped__()) == {"b": "task:a.yaml"}


@pytest.mark.parametrize("name", ["mmlu_flan_n_shot_generative", "afriqa"])
def test_a_group_that_aggregates_what_its_tasks_do_not_measure_stands_for_them(name: str) -> None:
    names = members_of(name, None)
    assert names is not None
    assert len(names) > 10
    assert all(find_benchmark(one) is not None for one in names)


def test_a_group_is_followed_with_what_it_sets_for_its_members(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\nnum_fewshot: 0\ntest_split: test\n")
    (tmp_path / "g.yaml").write_text(
        "group: g\ntask:\n  - {task: a, num_fewshot: 3}\n"
        "  - {group: inner, task: [{task: b, test_split: x}]}\ndescription: hello\n"
    )
    leaves = {leaf.name: leaf.config for leaf in tree_of("g", str(tmp_path)).leaves}
    assert leaves["a"] == {
        "task": "a", "num_fewshot": 3, "test_split": "test", "description": "hello",
    }  # fmt: skip
    assert leaves["g::inner::b"] == {"test_split": "x", "description": "hello"}
    assert set(index_of_folder(tmp_path)) == {"a", "g"}


@pytest.mark.parametrize(
    ("listed", "said"),
    [("[absent]", "lists 'absent', which nothing defines"), ("[g]", "'g' lists itself")],
)
def test_a_group_that_cannot_be_followed_is_told(listed: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        f"group: g\ntask: {listed}\naggregate_metric_list: [{{metric: acc}}]\n"
    )
    with pytest.raises(TreeFault, match=said):
        find_benchmark("g", str(tmp_path))


def test_shots_of_a_group_are_each_tasks_own(tmp_path: Path) -> None:
    leaderboard = find_benchmark("leaderboard")
    assert leaderboard is not None
    shots = {member.name: member.num_shots(None) for member in leaderboard.members}
    assert shots["leaderboard_mmlu_pro"] == 5
    assert shots["leaderboard_bbh_navigate"] == 3
    assert {member.num_shots(2) for member in leaderboard.members} == {0, 2}


def test_a_group_without_a_mean_stands_for_its_members() -> None:
    assert members_of("mmlu_pro", None) is None
    assert members_of("gsm8k", None) is None
    assert members_of("ai2_arc", None) == ["arc_challenge", "arc_easy"]
