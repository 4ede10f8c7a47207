"""Trackers beside MLflow change no bit of a training, and a slow one keeps no run waiting."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.test_end_to_end import environment, grid_text, zbench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("tensorboard") is None,
        reason="tensorboard is not installed: pip install 'zbench[tensorboard]'",
    ),
]

WITH_A_SLOW_ONE = """
import sys
from harness.tracking.beside.registry import TRACKERS, TrackerEntry
TRACKERS["wandb"] = TrackerEntry("tests.tracking.beside.odd_trackers", "pytest")
from harness.cli import main
sys.argv = ["zbench", "run-grid", "others.yaml", "--runs-dir", "others"]
main()
"""


def adapters(runs: Path) -> dict[str, str]:
    """Each cell's adapter by its folder, as a hash."""
    return {
        path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in runs.glob("cells/*/adapter/*.safetensors")
    }


def test_a_run_with_other_trackers_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "alone.yaml").write_text(grid_text())
    others = grid_text() + "tracking: {also: [wandb, tensorboard]}\n"
    (tmp_path / "others.yaml").write_text(others)
    alone = zbench(tmp_path, "run-grid", "alone.yaml", "--tracking-uri", "none")
    assert alone.returncode == 0, alone.stderr
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_SLOW_ONE], cwd=tmp_path, capture_output=True, text=True,
        env=environment(tmp_path) | {"ODD_TRACKER": "sleeps"}, check=False, timeout=280,
    )  # fmt: skip
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stdout + done.stderr
    assert adapters(tmp_path / "others") == adapters(tmp_path / "runs") != {}

    with sqlite3.connect(tmp_path / "others" / "mlflow.db") as database:
        query = "select step, value from metrics where key = 'train/loss' order by step"
        in_mlflow = dict(database.execute(query))
    assert seconds < 10 * len(in_mlflow)  # what the slow one would have taken
    told = re.search(
        rf"warning: wandb: (\d+) of {len(in_mlflow)} points are not in it", done.stdout
    )
    assert told is not None
    assert int(told[1]) > len(in_mlflow) / 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = [path for path in tmp_path.glob("others/tensorboard/*linear*")]
    shown = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    assert {point.step: point.value for point in shown} == pytest.approx(in_mlflow)
