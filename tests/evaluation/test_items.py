"""Rows of a benchmark that cannot be asked are refused with file, row and column."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from harness.errors import DataError, ZbenchError
from harness.evaluation import items
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.task_data import check_items
from harness.evaluation.tasks import TaskSpec
from tests.evaluation.conftest import write_rows

Row = dict[str, Any]


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(shared_root, tmp_path / "data")


def change(root: Path, name: str, number: int, change: Callable[[Row], object]) -> Path:
    benchmark = BENCHMARKS[name]
    path = root / benchmark.files[benchmark.eval_split]
    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    change(rows[number])
    write_rows(path, rows)
    return path


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if one.hub])
def test_good_rows_pass(name: str, shared_root: Path) -> None:
    check_items(TaskSpec(name=name), shared_root)


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if not one.hub])
def test_good_rows_of_the_world_pass(name: str, demo_root: Path) -> None:
    check_items(TaskSpec(name=name), demo_root)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("arc_easy", lambda row: row.update(answerKey="Z"), "column answerKey: 'Z' is none of the"),
        ("arc_easy", lambda row: row.update(answerKey=None), "column answerKey: is empty"),
        ("arc_easy", lambda row: row.update(question=None), "column question: is empty"),
        ("arc_easy", lambda row: row.update(choices=None), "column choices: is empty"),
        ("arc_easy", lambda row: row["choices"].update(text=None), r"column choices\.text: holds"),
        ("arc_easy", lambda row: row["choices"]["text"].pop(), r"column choices\.label: holds"),
        ("arc_easy", lambda row: row["choices"].update(text=["a", None]), r"choices\.text: holds"),
        ("arc_easy", lambda row: row["choices"].update(text=["a"], label=["A"]), "1 options, two"),
        ("mmlu", lambda row: row.update(answer=4), "column answer: 4 is no number from 0 to 3"),
        ("mmlu", lambda row: row.update(answer=-1), "column answer: -1 is no number"),
        ("mmlu", lambda row: row.update(answer=None), "column answer: is empty"),
        ("mmlu", lambda row: row["choices"].pop(), "has 3 options, 4 are due"),
        ("mmlu", lambda row: row.update(subject="alchemy"), "'alchemy' is no subject of mmlu"),
        ("hellaswag", lambda row: row.update(label=""), "column label: '' is no number"),
        ("hellaswag", lambda row: row.update(label="7"), "column label: '7' is no number"),
        ("hellaswag", lambda row: row.update(endings=["", "a"]), "is an empty text"),
        ("hellaswag", lambda row: row.update(ctx_b=None), "column ctx_b: is empty"),
        (
            "truthfulqa_mc1",
            lambda row: row["mc1_targets"]["labels"].reverse(),
            r"mc1_targets\.labels: does not begin with 1",
        ),
        ("truthfulqa_mc1", lambda row: row["mc1_targets"]["labels"].pop(), "numbers are due"),
        (
            "truthfulqa_mc2",
            lambda row: row["mc2_targets"].update(labels=[0] * 5),
            "where 0s and a 1 are due",
        ),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(
    root: Path, name: str, wrong: Callable[[Row], object], said: str
) -> None:
    path = change(root, name, 3, wrong)
    with pytest.raises(DataError, match=said) as caught:
        check_items(TaskSpec(name=name, shots=0), root)
    assert str(caught.value).startswith(f"{path}: ")
    assert "row 3 " in str(caught.value) or "alchemy" in said


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("question", [1], "column question holds int64, not text"),
        ("question", [b"x"], "column question holds binary, not text"),
        ("question", [" "], "column question: is an empty text"),
        ("choices", ["A, B"], r"row 0 .*, column choices\.text: holds 'A, B'"),
        ("choices", [["A", "B"]], r"column choices\.text: holds \['A', 'B'\]"),
        ("answerKey", [0], "column answerKey: 0 is none of the labels"),
        (
            "choices",
            [{"text": ["a", "b", "c", "d"], "label": ["A", "A", "B", "C"]}],
            "column choices.label: holds 'A' more than once",
        ),
        ("id", [b"x"], "column id holds binary"),
    ],
)
def test_a_column_of_another_type_is_named(
    root: Path, column: str, values: list[Any], said: str
) -> None:
    path = root / "arc_easy" / "test.parquet"
    table = pyarrow.parquet.read_table(path)
    table = table.set_column(table.column_names.index(column), column, [values * len(table)])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(ZbenchError, match=said):
        check_items(TaskSpec(name="arc_easy"), root)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"bytes": b"", "path": None}, "column image: the picture has zero bytes"),
        ({"bytes": b"no picture", "path": None}, "column image: its bytes are no picture"),
        ({"bytes": None, "path": "cat.jpg"}, None),
        (None, None),
    ],
)
def test_what_is_no_picture_is_named_and_none_is_no_fault(
    demo_root: Path, tmp_path: Path, image: object, said: str | None
) -> None:
    root = shutil.copytree(demo_root, tmp_path / "data")
    path = change(root, "demo_pictures", 3, lambda row: row.update(image=image))
    if said is None:
        check_items(TaskSpec(name="demo_pictures"), root)
        return
    with pytest.raises(DataError, match=said) as caught:
        check_items(TaskSpec(name="demo_pictures"), root)
    assert str(caught.value).startswith(f"{path}: row 3 ")


def test_too_few_rows_are_told(root: Path) -> None:
    path = root / "mmlu" / "test.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    write_rows(path, [row for row in rows if row["subject"] != "virology"])
    with pytest.raises(DataError, match="0 rows of subject 'virology', and an item is asked for"):
        check_items(TaskSpec(name="mmlu"), root)
    with pytest.raises(DataError, match="has 6 rows, and 7 examples are asked for"):
        check_items(TaskSpec(name="arc_easy", shots=7), root)
    check_items(TaskSpec(name="arc_easy", shots=6), root)


def test_rows_are_read_once_while_they_stay_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_items(TaskSpec(name="arc_easy"), root)
    monkeypatch.setattr(items, "read_rows", lambda *_: pytest.fail("read a second time"))
    check_items(TaskSpec(name="arc_easy"), root)


def test_the_pinned_files_are_not_read(real_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "read_rows", lambda *_: pytest.fail("read"))
    for name in ("arc_easy", "arc_challenge", "mmlu", "truthfulqa_mc1", "paper_mmlu"):
        check_items(TaskSpec(name=name), real_root)
