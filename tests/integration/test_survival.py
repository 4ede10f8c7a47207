"""Real processes that are stopped, killed, or out of memory: they go on, to the same numbers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.grid.folders import CHECKPOINTS_FOLDER
from tests.integration.test_end_to_end import (
    command,
    environment,
    grid_text,
    numbers,
    results,
    wait_until_free,
    zbench,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # on a machine that may be busy

CELL = "tiny-llama/zero-init-linear/10%/seed0"
TASKS = "tasks: [{name: demo_arc_easy, limit: 12}, {name: demo_mmlu, limit: 2}]"


def long_grid(minutes: float) -> str:
    """Returns a grid whose one trained cell takes some seconds, with checkpoints on its way."""
    text = grid_text().replace(TASKS, "tasks: [{name: demo_arc_easy, limit: 12}]")
    settings = f"epochs: 12, batch_size: 8, checkpoint_minutes: {minutes}"
    return text.replace("epochs: 2, batch_size: 8", settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder in which the cell was trained in one go."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "slice.yaml").write_text(long_grid(10))
    done = zbench(folder, "run-grid", "slice.yaml", "--only", "linear")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def cell_folder(folder: Path) -> Path:
    (found,) = folder.glob("runs/cells/*linear*")
    return found


def step_reached(folder: Path) -> int:
    """Returns the step of the newest checkpoint; 0 where there is none."""
    found = sorted(folder.glob(f"runs/cells/*/{CHECKPOINTS_FOLDER}/step-*"))
    return int(found[-1].name[5:]) if found else 0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts a command and waits until its training has written a checkpoint."""
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(process, lambda: step_reached(folder) >= 5)
    return process


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_same(folder: Path, whole: Path) -> None:
    """Checks that a cell that went on is what it is in one go, to the last bit."""
    mine, reference = (results(place)["zero-init-linear"] for place in (folder, whole))
    assert numbers(mine) == numbers(reference)
    assert mine["train"]["final_statistics"] == reference["train"]["final_statistics"]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        sums = {
            hashlib.sha256((cell_folder(place) / "adapter" / name).read_bytes()).hexdigest()
            for place in (folder, whole)
        }
        assert len(sums) == 1, name
    clock = ["seconds", "tokens_per_second", "time_ms"]
    steps = [pd.read_parquet(cell_folder(place) / "steps.parquet") for place in (folder, whole)]
    assert steps[0]["step"].tolist() == list(range(1, len(steps[1]) + 1))
    pd.testing.assert_frame_equal(
        steps[0].drop(columns=clock), steps[1].drop(columns=clock), check_exact=True
    )
    for file in ("gates.parquet", "attention_share.parquet"):
        frames = [pd.read_parquet(cell_folder(place) / file) for place in (folder, whole)]
        pd.testing.assert_frame_equal(frames[0], frames[1], check_exact=True)
    assert not (cell_folder(folder) / CHECKPOINTS_FOLDER).exists()


def logged_steps(folder: Path) -> list[tuple[str, int, int]]:
    """Returns status, steps and distinct steps of the loss, of every MLflow run of the cell."""
    query = (
        "select status, count(*), count(distinct step) from runs join metrics using (run_uuid) "
        "where key = 'train/loss' group by run_uuid order by start_time"
    )
    return sqlite3.connect(folder / "runs" / "mlflow.db").execute(query).fetchall()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_run_cell_that_is_ended_goes_on_to_the_same_bits(
    number: signal.Signals, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "slice.yaml").write_text(long_grid(0))
    assert zbench(tmp_path, "sync", "slice.yaml").returncode == 0  # makes the store, unhurried
    process = start(tmp_path, "run-cell", "slice.yaml", CELL)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=240)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "run the same command again to resume" in stderr
    reached = step_reached(tmp_path)
    total = results(whole)["zero-init-linear"]["train"]["steps"]
    assert 5 <= reached < total
    status = zbench(tmp_path, "status", "slice.yaml", "--only", "linear").stdout
    assert f"training (resumes from step {reached})" in status
    done = zbench(tmp_path, "run-grid", "slice.yaml", "--only", "linear")
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(tmp_path, whole)
    assert logged_steps(tmp_path)[-1] == ("FINISHED", total, total)


def test_ctrl_c_leaves_a_checkpoint_of_the_last_step(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "slice.yaml").write_text(long_grid(1e-3))
    process = start(tmp_path, "run-grid", "slice.yaml", "--only", "linear")
    before = step_reached(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode == 130
    wait_until_free(tmp_path)
    assert step_reached(tmp_path) >= before
    (log,) = tmp_path.glob("runs/cells/*/log.txt")
    assert "Traceback" not in log.read_text()
    done = zbench(tmp_path, "run-grid", "slice.yaml", "--only", "linear")
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(tmp_path, whole)


def test_sigusr1_to_the_grid_reaches_its_workers(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "slice.yaml").write_text(long_grid(10))
    process = subprocess.Popen(
        command("run-grid", "slice.yaml", "--only", "linear"), cwd=tmp_path,
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(process, lambda: bool(list(tmp_path.glob("runs/cells/*/cell.json"))))

    def told() -> bool:
        process.send_signal(signal.SIGUSR1)
        return step_reached(tmp_path) > 0

    wait_for(process, told)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    check_same(tmp_path, whole)


@pytest.mark.slow
def test_a_worker_that_alone_is_told_to_stop_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "slice.yaml").write_text(long_grid(0))
    process = start(tmp_path, "run-grid", "slice.yaml", "--only", "linear")
    for child in children(process.pid):
        os.kill(child, signal.SIGTERM)
    stdout, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "told to stop (SIGTERM)" in stdout
    status = json.loads(
        zbench(tmp_path, "status", "slice.yaml", "--only", "linear", "--json").stdout
    )
    assert status["cells"][0]["status"] == "to do"


def children(parent: int) -> list[int]:
    """Returns the workers of a run."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(child)
        for child in found
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
