"""Pictures of items from the data root: those that are wanted, told by their number in the task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from harness.analysis import item_pictures
from harness.analysis.item_pictures import stored_pictures
from harness.analysis.item_texts import stored_texts
from harness.demo.world import DATA
from harness.evaluation.items import question_id
from harness.evaluation.tasks import TaskSpec
from harness.readers.pictures import Picture


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A benchmark of four rows, two of which have a picture."""
    images = [{"bytes": b"one", "path": None}, None, {"bytes": b"two", "path": "x"}, None]
    rows = pd.DataFrame({"question": list("abcd"), "image": images, "topic": list("xyxy")})
    rows.to_parquet(tmp_path / "test.parquet")
    known = SimpleNamespace(
        name="mine", members=(), eval_split="test", picture_column="image", subject_column=None
    )
    monkeypatch.setattr(
        item_pictures, "local_files", lambda _task, root: {} if root is None else {
            "test": root / "test.parquet"
        }
    )  # fmt: skip
    return SimpleNamespace(benchmark=known)


def test_those_that_are_wanted_and_have_one(task, tmp_path: Path) -> None:
    wanted = [("mine", 0, "a"), ("mine", 1, "b"), ("other", 2, "c")]
    assert stored_pictures(task, tmp_path, wanted) == {("mine", 0, "a"): Picture.of(b"one")}


def test_subjects_are_tasks_with_numbers_of_their_own(task, tmp_path: Path) -> None:
    task.benchmark.subject_column = "topic"
    wanted = [("mine_x", 1, "c"), ("mine_y", 0, "b")]
    assert stored_pictures(task, tmp_path, wanted) == {("mine_x", 1, "c"): Picture.of(b"two")}


def test_without_data_or_without_the_column_there_are_none(task, tmp_path: Path) -> None:
    wanted = [("mine", 0, "a")]
    assert stored_pictures(task, None, wanted) == {}
    task.benchmark.picture_column = "drawing"
    assert stored_pictures(task, tmp_path, wanted) == {}
    task.benchmark.picture_column = None
    assert stored_pictures(task, tmp_path, wanted) == {}


def test_a_file_that_is_no_parquet_is_no_fault_of_the_report(task, tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and nothing")
    assert stored_pictures(task, tmp_path, [("mine", 0, "a")]) == {}


def test_the_embedded_world_s_pictures_are_those_of_its_rows() -> None:
    task = TaskSpec(name="demo_pictures")
    texts = stored_texts(task, DATA)
    wanted = [("demo_pictures", 0, "picture-000"), ("demo_pictures", 449, "picture-449")]
    found = stored_pictures(task, DATA, wanted)
    assert list(found) == wanted
    assert all(one.check() == (48, 48) for one in found.values())
    text = texts["demo_pictures/449", "picture-449"]
    assert len(text.options) == 4
    assert text.question.endswith("?")  # without what the records tell of the item


@pytest.mark.parametrize("has_id", [True, False])
def test_scienceqa_s_texts_are_found_with_their_pictures(tmp_path: Path, has_id: bool) -> None:
    rows = pd.DataFrame(
        {
            "pid": ["7", "9"],
            "question": ["Which?", "Which?"],
            "choices": [["a", "b"], ["a", "b"]],
            "answer": [0, 1],
            "hint": ["", "A hint."],
            "image": [{"bytes": b"one", "path": None}, None],
        }
    )
    (tmp_path / "scienceqa").mkdir()
    shown = rows if has_id else rows.drop(columns="pid")
    shown.to_parquet(tmp_path / "scienceqa" / "test.parquet")
    task = TaskSpec(name="paper_scienceqa")
    known = task.benchmark
    picture = Picture.of(b"one")
    names = [
        question_id(known, row, one)
        for row, one in zip(shown.to_dict("records"), (picture.sha256, None), strict=True)
    ]
    texts = stored_texts(task, tmp_path)
    assert texts["paper_scienceqa/0", names[0]].options == ("a", "b")
    assert texts["paper_scienceqa/1", names[1]].question == "Which?\nA hint."
    wanted = [("paper_scienceqa", n, name) for n, name in enumerate(names)]
    assert stored_pictures(task, tmp_path, wanted) == {wanted[0]: picture}


def test_it_imports_no_torch() -> None:
    code = (
        "import sys, harness.analysis.item_pictures, harness.report.pictures\n"
        "print([name for name in ('torch', 'lm_eval', 'datasets', 'transformers') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
