"""What a plan says of memory and operations, against tracked peaks and counted operations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.methods import METHODS
from tests.gpu_rehearsal.conftest import Run


def compare(run: Run, *arguments: str) -> list[dict[str, Any]]:
    """Returns what was tracked and planned, a dictionary for each method and number of ranks."""
    done = run("-m", "tests.gpu_rehearsal.memory", *arguments, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_holds(row: dict[str, Any]) -> None:
    """Asserts that the tracked peak <= the plan <= 1.1 x the tracked peak + 2 GB."""
    said = {key: row[key] for key in ("method", "size", "ranks", "nodes", "tracked", "planned")}
    assert row["tracked"] <= row["planned"] <= 1.1 * row["tracked"] + 2e9, said


@pytest.mark.rehearsal
def test_a_plan_holds_what_is_tracked(run: Run) -> None:
    few = ("--layers", "3", "--batch-size", "48")
    rows = compare(run, "zero-init-linear", "lora", "prefix-tuning", "prompt-tuning", *few)
    rows += compare(run, "full", "--ranks", "1,4", *few)
    assert len(rows) == 6
    for row in rows:
        assert_holds(row)
        # Nothing goes backward through the first layer's projections: 4 % of three layers.
        assert row["flops"] == pytest.approx(row["planned_flops"], rel=0.05), row["method"]


@pytest.mark.rehearsal
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize("method", [m for m in METHODS.own if m not in ("base", "adapter")])
def test_a_plan_holds_at_full_depth(method: str, size: str, run: Run) -> None:
    for row in compare(run, method, "--sizes", size, "--ranks", "1,2,4,8", "--fullest", "100"):
        assert_holds(row)
        assert row["flops"] == pytest.approx(row["planned_flops"], rel=0.02), row["method"]
