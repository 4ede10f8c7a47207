"""Content decides which version of a data set a file is, not its bytes or its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from harness.data import pins as data_pins
from harness.data.pins import Pin, content_sha256, pins, training_note
from harness.data.rows import Instruction
from harness.data.sets import rows_sha256, training_mismatch
from harness.data.spec import DataSpec
from harness.evaluation import data_versions
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.data_versions import local_contents, local_mismatches, task_content_sha256
from harness.evaluation.loading import load_benchmark
from harness.evaluation.tasks import TaskSpec
from harness.readers.files import Unreadable
from harness.records.files import sha256_of_file
from tests.evaluation.conftest import write_rows


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(path).to_pylist()


def content(name: str, root: Path, **task: int) -> str:
    return task_content_sha256(local_contents(TaskSpec(name=name, **task), root))  # type: ignore[arg-type]


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(shared_root, tmp_path / "data")


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "hellaswag", "truthfulqa_mc1"])
def test_another_file_of_the_same_rows_has_the_same_content(name: str, root: Path) -> None:
    task = TaskSpec(name=name, shots=0)
    before = content(name, root, shots=0)
    path = root / task.benchmark.files[task.benchmark.eval_split]
    table, old_bytes = pyarrow.parquet.read_table(path), path.read_bytes()
    extra = table.append_column("source", pyarrow.array(["x"] * table.num_rows))
    pyarrow.parquet.write_table(extra, path, compression="gzip")
    assert path.read_bytes() != old_bytes
    assert content(name, root, shots=0) == before


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "hellaswag"])
def test_a_changed_word_or_order_is_other_content(name: str, root: Path) -> None:
    benchmark = BENCHMARKS[name]
    before = content(name, root, shots=0)
    path = root / benchmark.files[benchmark.eval_split]
    rows = rows_of(path)
    column = "ctx_a" if name == "hellaswag" else "question"
    write_rows(path, [rows[0] | {column: rows[0][column] + " indeed"}, *rows[1:]])
    assert content(name, root, shots=0) != before
    write_rows(path, [rows[1], rows[0], *rows[2:]])
    assert content(name, root, shots=0) != before


def test_subjects_may_lie_in_any_order(root: Path) -> None:
    before, path = content("mmlu", root), root / "mmlu" / "test.parquet"
    rows = rows_of(path)
    last = rows[-1]["subject"]
    write_rows(
        path,
        [row for row in rows if row["subject"] == last]
        + [row for row in rows if row["subject"] != last],
    )
    assert content("mmlu", root) == before


def test_markers_that_no_prompt_shows_do_not_count(root: Path) -> None:
    before, path = content("hellaswag", root, shots=0), root / "hellaswag" / "validation.parquet"
    rows = rows_of(path)
    bare = [row | {"ctx_a": "[header] " + row["ctx_a"]} for row in rows]
    write_rows(path, bare)
    assert content("hellaswag", root, shots=0) == before


def test_few_shot_rows_count_where_they_are_used(root: Path) -> None:
    few, none = content("arc_easy", root, shots=2), content("arc_easy", root)
    path = root / "arc_easy" / "train.parquet"
    write_rows(path, rows_of(path)[1:])
    assert content("arc_easy", root) == none
    assert content("arc_easy", root, shots=2) != few


def test_the_content_of_instructions_is_that_of_their_rows(tmp_path: Path) -> None:
    row = {"instruction": "Say \u201chi\u201d.", "input": "", "output": "hi"}
    assert rows_sha256([Instruction(**row)]) == content_sha256([list(row.values())])


@pytest.fixture
def pinned(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny data, pinned as they are."""
    path, columns = root / "arc_easy" / "test.parquet", BENCHMARKS["arc_easy"].columns
    rows = [[row[name] for name in columns] for row in rows_of(path)]
    entry = Pin("arc_easy/test.parquet", "a/b test", columns, len(rows), sha256_of_file(path),
                content_sha256(rows))  # fmt: skip
    alpaca = Pin("alpaca/train.parquet", "t/alpaca", ("instruction",), 1, "0", "1")
    table = {entry.file: entry, alpaca.file: alpaca}
    for module in (data_pins, data_versions):
        monkeypatch.setattr(module, "pins", lambda: table)
    return root


def test_the_pinned_version_passes_and_another_is_named(pinned: Path) -> None:
    task, path = TaskSpec(name="arc_easy"), pinned / "arc_easy" / "test.parquet"
    assert local_mismatches(task, pinned) == []
    rows = rows_of(path)
    write_rows(path, rows[:-1])
    (other,) = local_mismatches(task, pinned)
    assert str(other).startswith(f"{path}: {len(rows) - 1} rows of content ")
    assert f"not the pinned version of a/b test ({len(rows)} rows" in str(other)
    assert load_benchmark(task, pinned).mismatches == (other,)


def test_what_is_on_no_hub_has_no_pinned_version(pinned: Path) -> None:
    path = pinned / "arc_easy" / "test.parquet"
    write_rows(path, rows_of(path)[:-1])
    assert local_mismatches(TaskSpec(name="demo_arc_easy"), pinned) == []


def test_training_data_count_where_the_grid_calls_them_a_copy(pinned: Path) -> None:
    path = pinned / "alpaca" / "train.parquet"
    write_rows(path, [{"instruction": "a", "output": ""}, {"instruction": "b", "output": "c"}])
    (lines := path.with_suffix(".jsonl")).write_text('{"instruction": "a", "output": "b"}')

    def mismatch(place: Path, **settings: object) -> str:
        spec = DataSpec.model_validate({"path": str(place), **settings})
        return str(training_mismatch(spec, None))

    assert mismatch(path) == mismatch(path, source="someone/else") == "None"
    assert "2 rows of content" in mismatch(path, source="t/alpaca")
    assert "1 rows of content" in mismatch(lines, source="t/alpaca")  # of any format
    assert mismatch(path, source="t/alpaca", where="instruction == 'b'") == "None"  # says so
    assert training_note("t/alpaca", "1") is None
    assert training_note("t/alpaca", None) is None
    assert "training data differs from the pinned version" in str(training_note("t/alpaca", "2"))


def test_a_file_without_the_columns_is_told(root: Path) -> None:
    write_rows(root / "arc_easy" / "test.parquet", [{"text": "a"}])
    with pytest.raises(Unreadable, match="lacks the columns id, question"):
        local_mismatches(TaskSpec(name="arc_easy"), root)


def test_the_real_files_are_the_pinned_version_by_their_rows_too(
    real_root: Path, tmp_path: Path
) -> None:
    for name in ("arc_easy", "arc_challenge", "mmlu", "hellaswag", "truthfulqa_mc2"):
        task = TaskSpec(name=name, shots=0)
        file = task.benchmark.files[task.benchmark.eval_split]
        copy = tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Other bytes, so that the rows are read.
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(real_root / file), copy)
        assert sha256_of_file(copy) != pins()[file].file_sha256
        assert local_mismatches(task, tmp_path) == []
        assert local_contents(task, tmp_path) == local_contents(task, real_root)


def test_what_counts_of_hellaswag_is_what_lm_eval_shows(real_root: Path) -> None:
    (task,) = load_benchmark(TaskSpec(name="hellaswag", shots=0), real_root).tasks.values()
    digest = content_sha256(
        [
            " ".join(doc["query"].split()),
            [" ".join(choice.split()) for choice in doc["choices"]],
            str(doc["gold"]),
        ]
        for doc in task.eval_docs
    )
    assert digest == pins()["hellaswag/validation.parquet"].content_sha256


def test_every_pin_is_whole() -> None:
    for file, pin in pins().items():
        assert file.endswith(".parquet")
        assert pin.rows > 0
        assert len(pin.file_sha256) == len(pin.content_sha256) == 64
    assert pins()["alpaca/train.parquet"].rows == 52_002
    assert json.loads(json.dumps(list(pins()))) == list(pins())
