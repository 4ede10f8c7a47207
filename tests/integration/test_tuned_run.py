"""A tuned grid as a user runs it: killed at its trials, run again, chosen and trained anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.test_end_to_end import command, environment, grid_text, zbench

pytestmark = pytest.mark.slow
GRID = "tuned.yaml"
RATES = [1e-5, 1e-2, 1e30]


def write_grid(folder: Path) -> None:
    raw = yaml.safe_load(grid_text())
    del raw["methods"]
    raw |= {
        "name": "tuned",
        "data": {**raw["data"], "validation": {"fraction": 0.05}},
        "train": {"max_steps": 3, "batch_size": 8, "warmup_steps": 0, "keep": "best"},
        "tasks": [{"name": "demo_arc_easy", "limit": 4}],
    }
    tune = {"trials": 3, "space": {"lora": {"learning_rate": RATES}}}
    raw["blocks"] = [{"methods": ["lora"], "fractions": [0.1], "seeds": [0], "tune": tune}]
    (folder / GRID).write_text(yaml.safe_dump(raw))


def trial_results(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/cells/*trial-*/result.json"))


def told(folder: Path, *arguments: str) -> dict:
    done = zbench(folder, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def run_and_kill(folder: Path) -> None:
    """Runs the grid until a trial has a result, and kills it without a warning."""
    run = subprocess.Popen(
        command("run-grid", GRID, "--workers", "1"), cwd=folder, env=environment(folder),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 200
        while not trial_results(folder) and time.monotonic() < end and run.poll() is None:
            time.sleep(0.02)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the grid was killed at its trials, and run again to its end."""
    folder = tmp_path_factory.mktemp("tuned")
    write_grid(folder)
    run_and_kill(folder)
    assert 1 <= len(trial_results(folder)) < 3
    early = zbench(folder, "run-grid", GRID, "--only", "tuned")
    assert (early.returncode, "waits for" in early.stderr) == (2, True), early.stderr
    done = zbench(folder, "run-grid", GRID, "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 trial diverged" in done.stdout
    return folder


def test_the_best_rate_is_chosen_and_trained_anew(finished: Path) -> None:
    found = told(finished, "status", GRID)
    (tuning,) = found["tunings"]
    assert [trial["status"] for trial in tuning["trials"]] == ["done", "done", "failed"]
    values = [trial["value"] for trial in tuning["trials"]]
    assert values[1] < values[0]
    assert (tuning["chosen"], tuning["settings"]) == (1, {"learning_rate": 0.01})
    cells = {cell["label"].split("/")[1]: cell for cell in found["cells"]}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "lora": "done",
        "lora[trial-0]": "done",
        "lora[trial-1]": "done",
        "lora[trial-2]": "failed",
        "lora[tuned]": "done",
    }
    assert cells["lora[trial-1]"]["scores"] == {}
    assert set(cells["lora[tuned]"]["scores"]) == {"demo_arc_easy"}
    losses = {}
    for name in ("lora[trial-1]", "lora[tuned]"):
        result = json.loads((Path(finished, cells[name]["folder"]) / "result.json").read_text())
        assert (result["cell"]["train"]["learning_rate"], result["train"]["steps"]) == (0.01, 3)
        losses[result["cell"]["seed"]] = result["train"]["epoch_losses"]
    assert set(losses) == {0, 1_000_000}
    assert losses[0] != losses[1_000_000]


def test_the_same_command_does_nothing_more(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/cells/*/*.json")}
    outcome = told(finished, "run-grid", GRID)["outcome"]
    assert (outcome["done"], outcome["failed"]) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_lost_is_chosen_again(finished: Path) -> None:
    whole = told(finished, "status", GRID)
    (folder,) = {path.parent for path in trial_results(finished) if "trial-1" in str(path)}
    aside = finished / "aside"
    shutil.move(folder, aside)
    lost = told(finished, "status", GRID)["tunings"][0]
    assert (lost["chosen"], lost["trials"][1]["status"]) == (None, "to do")
    shutil.rmtree(finished / "runs" / "tuning")
    assert zbench(finished, "run-grid", GRID, "--only", "trial-1").returncode == 0
    again = told(finished, "status", GRID)
    assert again["tunings"] == whole["tunings"]
    assert [cell["id"] for cell in again["cells"]] == [cell["id"] for cell in whole["cells"]]


def test_mlflow_and_optuna_show_the_trials(finished: Path) -> None:
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    database = sqlite3.connect(finished / "runs" / "mlflow.db")
    query = "select name, value from runs join tags on runs.run_uuid = tags.run_uuid where key = ?"
    tagged = {name.split("/")[1]: value for name, value in
              database.execute(query, ("zbench.tuning",))}  # fmt: skip
    trials = {f"lora[trial-{number}]": "trial" for number in range(3)}
    assert tagged == {**trials, "lora[tuned]": "winner"}
    file = finished / "runs" / "tuning" / "tuned.log"
    study = load_study(
        study_name="tiny-llama/lora", storage=JournalStorage(JournalFileBackend(str(file)))
    )
    assert study.best_trial.number == study.user_attrs["chosen trial"] == 1
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]


def test_the_report_has_no_trial_among_its_scores(finished: Path) -> None:
    done = zbench(finished, "report", GRID)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = (finished / "reports" / "tuned" / "scores.csv").read_text()
    assert "lora[tuned]" in scores
    assert "trial-" not in scores
