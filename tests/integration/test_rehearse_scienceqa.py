"""ScienceQA's grid rehearsed on real questions and pictures, with a tiny LLaMA and a tiny CLIP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scripts.rehearse_scienceqa import NUM_TRAINED, TASKS, prepare
from tests.fixtures.real_data import DATA_ROOT, HAS_REAL_DATA

NAMES = ("text-only", "pictures", "pictures-random")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HAS_REAL_DATA or not (Path(str(DATA_ROOT)) / "scienceqa").is_dir(),
        reason="ZBENCH_DATA_ROOT names no folder with scienceqa and stories260k_hf",
    ),
]


def zbench(folder: Path, *arguments: str) -> str:
    package = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": package}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1500)
def test_pictures_train_and_are_scored_and_the_page_says_what_they_are(tmp_path: Path) -> None:
    assert DATA_ROOT is not None
    prepare(Path(DATA_ROOT), tmp_path)
    assert "4,241" in zbench(tmp_path, "plan", "all-text.yaml")
    zbench(tmp_path, "run-grid", "rehearsal.yaml")
    found = {
        path.parent.name.partition("--")[0]: json.loads(path.read_text())
        for path in tmp_path.glob("runs/cells/*/result.json")
    }
    trained = [f"stories260k-{name}-100pct-seed0" for name in NAMES]
    assert found.keys() == {"stories260k-base", *trained}
    for name, result in found.items():
        counts = {score["benchmark"]: score["n"] for score in result["scores"]}
        assert counts == dict.fromkeys(TASKS, 240 - NUM_TRAINED)
        if name in trained:
            train = result["train"]
            assert train["examples"] + train["lost_examples"] == 1041 + NUM_TRAINED
    for task in TASKS:
        (path,) = tmp_path.glob(f"runs/cells/*-pictures-100pct-*/items/{task}--*")
        items = pd.read_parquet(path)
        assert items["picture"].nunique() > 100
        assert items["has_image"].all()
    zbench(tmp_path, "report", "rehearsal.yaml")
    page = (tmp_path / "reports/scienceqa-rehearsal/index.html").read_text(encoding="utf-8")
    assert "TEST ROWS ARE TRAINED ON, AND THE NUMBERS MEAN NOTHING" in page
