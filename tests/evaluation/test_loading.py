from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest

from harness.errors import DataError, EvaluationError, ZbenchError
from harness.evaluation import loading
from harness.evaluation.benchmarks import BENCHMARKS, HELLASWAG_SAMPLE
from harness.evaluation.loading import load_benchmark
from harness.evaluation.tasks import TaskSpec
from harness.readers.files import Unreadable
from tests.evaluation.conftest import DEMO_SUBJECTS, mmlu_subjects, write_rows

REAL = [name for name in BENCHMARKS if not name.startswith("demo_")]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"network or a process was tried: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(shared_root, tmp_path / "data")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", REAL)
def test_local_data_needs_no_network(name: str, shared_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name=name, limit=2), shared_root)
    assert loaded.build_requests() > 0
    assert loaded.note is None


@pytest.mark.parametrize("name", ["demo_arc_easy", "demo_hellaswag", "demo_truthfulqa_mc2"])
def test_demo_tasks_read_the_same_layout(name: str, demo_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name=name, limit=2), demo_root)
    assert list(loaded.tasks) == [name]
    assert loaded.build_requests() >= 6


def test_mmlu_is_lm_evals_group_of_57_subjects(shared_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name="mmlu", limit=1), shared_root)
    assert sorted(loaded.tasks) == [f"mmlu_{subject}" for subject in mmlu_subjects()]
    assert len(loaded.tasks) == 57
    assert set(loaded.groups) >= {"mmlu", "mmlu_stem", "mmlu_humanities"}
    docs = {name: task.eval_docs[0]["subject"] for name, task in loaded.tasks.items()}
    assert all(name == f"mmlu_{subject}" for name, subject in docs.items())


def test_a_group_without_a_file_is_the_subjects_of_the_data(demo_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name="demo_mmlu"), demo_root)
    assert list(loaded.tasks) == [f"demo_mmlu_{subject}" for subject in DEMO_SUBJECTS]
    assert [len(task.eval_docs) for task in loaded.tasks.values()] == [3, 5]


def test_a_subject_without_a_task_is_named(demo_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(demo_root, tmp_path / "data")
    rows = pyarrow.parquet.read_table(root / "mmlu" / "test.parquet").to_pylist()
    write_rows(root / "mmlu" / "test.parquet", [*rows, rows[0] | {"subject": "alchemy"}])
    with pytest.raises(EvaluationError, match="no task 'demo_mmlu_alchemy'"):
        load_benchmark(TaskSpec(name="demo_mmlu"), root)


def test_limit_takes_the_first_items_of_each_task(shared_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name="mmlu", limit=2), shared_root)
    assert loaded.build_requests() == 57 * 2 * 4
    for task in loaded.tasks.values():
        assert {request.doc_id for request in task.instances} == {0, 1}


def test_the_same_data_gives_the_same_objects_and_new_data_new_ones(root: Path) -> None:
    spec = TaskSpec(name="arc_easy", limit=3)
    first = load_benchmark(spec, root)
    assert load_benchmark(TaskSpec(name="arc_easy", limit=3), root) is first
    assert load_benchmark(TaskSpec(name="arc_easy", limit=4), root) is not first
    shutil.copy(root / "arc_challenge" / "test.parquet", root / "arc_easy" / "test.parquet")
    second = load_benchmark(spec, root)
    assert second is not first
    assert second.data_sha256 != first.data_sha256


def test_requests_are_handed_out_again_without_answers(shared_root: Path) -> None:
    loaded = load_benchmark(TaskSpec(name="hellaswag", shots=3), shared_root)
    loaded.build_requests()
    (task,) = loaded.tasks.values()
    before = [request.args for request in task.instances]
    for request in task.instances:
        request.resps.append((-1.0, True))
    task.apply_filters()
    loaded.build_requests()
    assert [request.args for request in task.instances] == before
    assert all(not request.resps and not request.filtered_resps for request in task.instances)


def test_the_sample_of_hellaswags_train_split_is_noted(root: Path) -> None:
    train = root / "hellaswag" / "train.parquet"
    shutil.move(train, root / HELLASWAG_SAMPLE)
    loaded = load_benchmark(TaskSpec(name="hellaswag", shots=3), root)
    assert loaded.note is not None
    assert "sample of the training split" in loaded.note
    assert loaded.data_source.endswith(Path(HELLASWAG_SAMPLE).name)
    zero_shot = load_benchmark(TaskSpec(name="hellaswag", shots=0), root)
    assert zero_shot.note is None


def test_files_that_no_prompt_needs_may_be_absent(root: Path) -> None:
    (root / "arc_easy" / "train.parquet").unlink()
    assert load_benchmark(TaskSpec(name="arc_easy"), root).build_requests() > 0
    with pytest.raises(DataError, match=r"arc_easy/train\.parquet: no such file"):
        load_benchmark(TaskSpec(name="arc_easy", shots=1), root)


def test_more_shots_than_examples_are_refused(shared_root: Path) -> None:
    with pytest.raises(EvaluationError, match="5 few-shot examples are asked for, and mmlu_"):
        load_benchmark(TaskSpec(name="mmlu", shots=5), shared_root)


def test_an_absent_subject_is_named(root: Path) -> None:
    path = root / "mmlu" / "test.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    write_rows(path, [row for row in rows if row["subject"] != "virology"])
    with pytest.raises(DataError, match="no row of subject 'virology'"):
        load_benchmark(TaskSpec(name="mmlu"), root)


def test_a_missing_column_is_named(root: Path) -> None:
    path = root / "truthfulqa_mc" / "validation.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns("mc2_targets"), path)
    assert load_benchmark(TaskSpec(name="truthfulqa_mc1"), root).build_requests() > 0
    with pytest.raises(Unreadable, match="lacks the column mc2_targets"):
        load_benchmark(TaskSpec(name="truthfulqa_mc2"), root)


@pytest.mark.parametrize("position", [0, 3])
def test_a_row_that_makes_no_prompt_is_one_line(root: Path, position: int) -> None:
    path = root / "arc_easy" / "test.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[position]["answerKey"] = "Z"
    write_rows(path, rows)
    said = "lm-eval cannot|row 3 .*, column answerKey: 'Z' is none of the labels"
    with pytest.raises((DataError, EvaluationError), match=said) as caught:
        load_benchmark(TaskSpec(name="arc_easy"), root).build_requests()
    assert "arc_easy/test.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_demo_items_are_on_no_hub() -> None:
    with pytest.raises(DataError, match="demo_mmlu: its items are on no hub"):
        load_benchmark(TaskSpec(name="demo_mmlu"), None)


@pytest.fixture
def hub_folder(shared_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the repository's relative path, which `datasets` prefers to the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "allenai" / "ai2_arc"
    for split in ("train", "test"):
        (folder / "ARC-Easy").mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_root / "arc_easy" / f"{split}.parquet", folder / "ARC-Easy")
    shutil.copy(folder / "ARC-Easy" / "train.parquet", folder / "ARC-Easy" / "validation.parquet")
    files = "".join(
        f"  - split: {split}\n    path: ARC-Easy/{split}.parquet\n"
        for split in ("train", "validation", "test")
    )
    text = f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n{files}---\n"
    (folder / "README.md").write_text(text)
    return folder


def test_hub_data_makes_the_same_requests_as_the_same_files(
    hub_folder: Path, shared_root: Path
) -> None:
    assert hub_folder.is_dir()
    hub = load_benchmark(TaskSpec(name="arc_easy", shots=2), None)
    local = load_benchmark(TaskSpec(name="arc_easy", shots=2), shared_root)
    requests: list[list[Any]] = []
    for loaded in (hub, local):
        loaded.build_requests()
        requests.append([request.args for request in loaded.tasks["arc_easy"].instances])
    assert requests[0] == requests[1]
    assert hub.data_source.startswith("allenai/ai2_arc@")
    assert hub.data_sha256 is not None
    assert len(hub.data_sha256) == 64
    assert hub.content_sha256 == local.content_sha256


def test_an_unreachable_hub_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(
        ZbenchError, match="truthfulqa_mc1: cannot read truthfulqa/truthful_qa"
    ) as e:
        load_benchmark(TaskSpec(name="truthfulqa_mc1"), None)
    assert "--data-root" in str(e.value)
    assert os.linesep not in str(e.value)


def test_memory_that_runs_out_is_no_fault_of_the_data(
    shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise MemoryError

    loaded = load_benchmark(TaskSpec(name="arc_easy", limit=2), shared_root)
    monkeypatch.setattr(type(loaded.tasks["arc_easy"]), "build_all_requests", full)
    with pytest.raises(MemoryError):
        loaded.build_requests()
    monkeypatch.setattr(loading, "build_tasks", full)
    with pytest.raises(MemoryError):
        load_benchmark(TaskSpec(name="arc_easy", limit=11), shared_root)
