"""What counts as a difference from `expected.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gpu_rehearsal import expectations

STEP: dict[str, Any] = {
    "launches": 1000,
    "ops": 2000,
    "syncs": 1,
    "peak_gb": 10.0,
    "attention": ["flash bfloat16"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "expected.json"
    expectations.write({"lora | h200 bf16": {"train": STEP, "save": "ok"}}, path)
    return path


def faults(file: Path, **changes: Any) -> list[str]:
    step = {name: value for name, value in (STEP | changes).items() if value is not None}
    return expectations.faults("lora | h200 bf16", {"train": step, "save": "ok"}, file)


def test_near_figures_are_the_same(file: Path) -> None:
    assert faults(file, launches=1020, ops=1960, peak_gb=10.29) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"launches": 1021}, "train/launches: was 1000, is 1021"),
        ({"ops": 1959}, "train/ops: was 2000, is 1959"),
        ({"syncs": 2}, "train/syncs: was 1, is 2"),
        ({"peak_gb": 10.31}, "train/peak_gb: was 10.0, is 10.31"),
        (
            {"attention": ["math bfloat16"]},
            "train/attention: was ['flash bfloat16'], is ['math bfloat16']",
        ),
        ({"ops": None}, "train/ops: is missing, was 2000"),
        ({"copies": 3}, "train/copies: is new, with 3"),
    ],
)
def test_a_difference_is_told_in_a_line(file: Path, change: dict[str, Any], line: str) -> None:
    assert faults(file, **change) == [line]


def test_a_stage_that_is_missing_or_fails_is_a_fault(file: Path) -> None:
    found = expectations.faults("lora | h200 bf16", {"save": "OSError: full"}, file)
    assert found == ["save: was ok, is OSError: full", f"train: is missing, was {STEP}"]


def test_an_unknown_entry_is_a_fault_unless_it_is_a_plug_ins(file: Path) -> None:
    (line,) = expectations.faults("mine | h200 bf16", {"save": "ok"}, file)
    assert "--write" in line
    assert expectations.faults("mine | h200 bf16", {"save": "ok"}, known=False) == []
    assert expectations.faults("mine | h200 bf16", {"save": "E: x"}, known=False) == ["save: E: x"]


def test_writing_keeps_the_other_entries(file: Path) -> None:
    expectations.write({"full | h200 bf16": {"train": STEP}}, file)
    assert list(expectations.read(file)) == ["full | h200 bf16", "lora | h200 bf16"]
