"""Mutants of data files: what `plan` accepts can be read; else the file is named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.sets import DataSpec, read_instructions
from harness.evaluation.loading import load_benchmark
from harness.evaluation.tasks import TaskSpec
from tests.fixtures.tiny_checkpoint import write_checkpoint
from tests.fuzz.conftest import Watch, mutants
from tests.fuzz.mutants import damaged, tables

ROWS = pa.table({
    "instruction": [f"Say number {i}" for i in range(12)],
    "input": [""] * 12,
    "output": [f"It is {i}." for i in range(12)],
})  # fmt: skip
ITEMS = pa.table({
    "id": [f"q{i}" for i in range(12)],
    "question": [f"Which is {i}?" for i in range(12)],
    "choices": [{"text": ["one", "two", "three"], "label": ["A", "B", "C"]}] * 12,
    "answerKey": ["A", "B", "C"] * 4,
})  # fmt: skip
RUNS = pa.table({name: [value] * 12 for name, value in (
    ("question", "Which?"), ("mc1_targets", {"choices": ["a", "b"], "labels": [1, 0]}),
    ("mc2_targets", {"choices": ["a", "b", "c"], "labels": [1, 1, 0]}),
)})  # fmt: skip


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def root(home: Path) -> Path:
    """A data root with a model, rows of one's own and two benchmarks; and a grid of them."""
    root = home / "root"
    shape = write_checkpoint(root / "model").shape.model_dump()
    for name in ("arc_easy", "truthfulqa_mc"):
        (root / name).mkdir()
    grid = {
        "name": "data",
        "models": {"tiny": {"path": "model", "shape": shape}},
        "data": {"path": "mine.parquet"},
        "train": {"epochs": 1, "batch_size": 4, "warmup_ratio": 0},
        "tasks": [{"name": "arc_easy", "limit": 4}, {"name": "truthfulqa_mc1", "limit": 4}],
        "blocks": [{"methods": [{"method": "lora", "train": {"learning_rate": 0.001}}]}],
    }
    (home / "data.yaml").write_text(json.dumps(grid))
    return root


FILES: dict[str, pa.Table] = {
    "mine.parquet": ROWS,
    "arc_easy/test.parquet": ITEMS,
    "truthfulqa_mc/validation.parquet": RUNS,
}


def test_mutants_of_data_files(watch: Watch, home: Path, root: Path) -> None:
    def plan() -> Any:
        arguments = ["--runs-dir", str(home / "runs"), "--data-root", str(root)]
        arguments.append("--allow-data-mismatch")
        return watch.zbench("plan", str(home / "data.yaml"), *arguments)

    def read() -> None:
        read_instructions(DataSpec(source=None, path="mine.parquet"), data_root=root)
        for name in ("arc_easy", "truthfulqa_mc1"):
            load_benchmark(TaskSpec(name=name, limit=4), root)

    def restore() -> None:
        for name, table in FILES.items():
            (root / name).write_bytes(parquet(table))

    restore()
    assert plan().code == 0, plan().text
    read()

    @mutants(quick=12, long=500)
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        restore()
        name = data.draw(st.sampled_from(sorted(FILES)))
        table = FILES[name]
        drawn: Callable[[], bytes] = lambda: (  # noqa: E731
            parquet(data.draw(tables(table))) if data.draw(st.integers(0, 3)) else
            data.draw(damaged(parquet(table)))
        )  # fmt: skip
        (root / name).write_bytes(drawn())
        with watch.trial("data files") as found:
            done = plan()
            if done.code:
                found.refused += 1
                assert name in done.text.replace("\n", ""), done.text
            else:
                read()

    try_one()
