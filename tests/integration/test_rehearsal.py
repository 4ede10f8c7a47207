"""A slice of the rehearsal: the paper's methods on real data with a tiny real LLaMA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.real_data import DATA_ROOT, HAS_REAL_DATA

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HAS_REAL_DATA,
        reason="ZBENCH_DATA_ROOT names no folder with the data sets and stories260k_hf",
    ),
]


@pytest.mark.timeout(900)
def test_every_benchmark_of_the_paper_is_scored_on_real_data(tmp_path: Path) -> None:
    assert DATA_ROOT is not None
    package = Path(__file__).parents[2]
    arguments = ["run-grid", "rehearsal", "--only", "zero-init-linear", "--data-root", DATA_ROOT]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("runs/cells/*/result.json")
    result = json.loads(path.read_text())
    assert result["train"]["examples"] == 520
    counts = {score["task"]: score["n"] for score in result["scores"]}
    assert sum(name.startswith("mmlu_") for name in counts) == 57
    assert counts["arc_easy"] == counts["arc_challenge"] == 100
    notes = {score["benchmark"]: score["note"] for score in result["scores"]}
    assert "activity labels are missing" in notes["hellaswag"]
