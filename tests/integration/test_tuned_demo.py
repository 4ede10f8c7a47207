"""The tuned demo, smaller: killed among its trials and before its winners, it ends the same."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.readers.yaml_files import parse_yaml
from tests.integration.test_end_to_end import (
    PACKAGE,
    command,
    environment,
    numbers,
    wait_until_free,
    zbench,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # whole processes, of many cells

METHODS = ("random-init", "zero-init-linear")
TRIALS, SEEDS = 3, (0, 1)


def small_grid() -> str:
    """Returns the grid that ships, with two methods, fewer and shorter trials, and fewer items."""
    shipped = PACKAGE / "harness/grids/demo-tuned.yaml"
    grid = parse_yaml(shipped.read_text(encoding="utf-8"), shipped).content
    base, tuned = grid["blocks"]
    tune = tuned["tune"]
    spaces = {
        name: {"learning_rate": tune["space"][name]["learning_rate"][2 : 2 + TRIALS]}
        for name in METHODS
    }
    block = {**tuned, "methods": [*METHODS], "fractions": [0.1], "seeds": [*SEEDS]}
    block["tune"] = {**tune, "trials": TRIALS, "space": spaces}
    small: dict[str, Any] = {
        **grid,
        "name": "slice",
        "tasks": [{"name": name, "limit": 8} for name in grid["tasks"]],
        "train": {"epochs": 2, "batch_size": 8, "checkpoint_minutes": 0},
        "methods": {name: grid["methods"][name] for name in METHODS},
        "claims": grid["claims"][:1],
        "blocks": [base, block],
    }
    return yaml.safe_dump(small, sort_keys=False)


def folder_with_grid(folder: Path) -> Path:
    (folder / "slice.yaml").write_text(small_grid())
    return folder


def cells(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the stored results by the name of the cell's folder, which has its label and id."""
    found = {}
    for path in folder.glob("runs/cells/*/result.json"):
        result = json.loads(path.read_text())
        if not result.get("error"):
            found[path.parent.name] = result
    return found


def trials_done(folder: Path) -> int:
    return sum("trial" in name for name in cells(folder))


def winners_begun(folder: Path) -> list[Path]:
    return [path for path in folder.glob("runs/cells/*tuned*") if (path / "cell.json").is_file()]


def interrupt(folder: Path, number: signal.Signals, reached: Callable[[], bool]) -> None:
    """Starts the grid, and ends it by a signal as soon as it has come so far."""
    process = subprocess.Popen(
        command("run-grid", "slice.yaml", "--workers", "1"), cwd=folder, env=environment(folder),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    try:
        while not reached():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode in (130, -signal.SIGKILL)
    wait_until_free(folder)


def report(folder: Path) -> str:
    done = zbench(folder, "report", "slice.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def chosen(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the settings that the report says were chosen, by method."""
    with open(folder / "reports" / "slice" / "tuning.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == TRIALS * len(METHODS)
    return {
        one["method"]: json.loads(one["settings"]) for one in trials if one["is_chosen"] == "True"
    }


def adapters(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every cell's trained weights."""
    return {
        path.parent.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("runs/cells/*/adapter/adapter_model.safetensors")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder in which the grid was run in one go, and reported."""
    folder = folder_with_grid(tmp_path_factory.mktemp("whole"))
    done = zbench(folder, "run-grid", "slice.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    report(folder)
    return folder


def test_the_winner_is_the_trial_with_the_lowest_validation_loss(whole: Path) -> None:
    losses: dict[str, dict[float, float]] = {}
    for name, result in cells(whole).items():
        if "trial" in name:
            train = result["train"]
            rate = result["cell"]["train"]["learning_rate"]
            losses.setdefault(result["cell"]["method"], {})[rate] = train["validation_losses"][-1]
    assert {name: len(found) for name, found in losses.items()} == dict.fromkeys(METHODS, TRIALS)
    expected = {name: min(found, key=lambda rate: found[rate]) for name, found in losses.items()}
    assert {name: one["learning_rate"] for name, one in chosen(whole).items()} == expected


def test_no_trial_is_scored_and_every_winner_has_fresh_seeds(whole: Path) -> None:
    found = cells(whole)
    assert not any(one["scores"] for name, one in found.items() if "trial" in name)
    assert {one["cell"]["seed"] for name, one in found.items() if "trial" in name} == {1_000_000}
    rates = {name: one["learning_rate"] for name, one in chosen(whole).items()}
    for method in METHODS:
        seeds = {
            one["cell"]["seed"]
            for name, one in found.items()
            if "trial" not in name
            and one["cell"]["method"] == method
            and one["cell"]["train"]["learning_rate"] == rates[method]
            and one["scores"]
        }
        assert seeds == set(SEEDS)


def test_the_report_tells_the_choice_and_the_scores(whole: Path) -> None:
    terminal = report(whole)
    for text in ("What was tuned, and what was chosen", "At the published recipe, and tuned"):
        assert text in terminal
    page = (whole / "reports" / "slice" / "index.html").read_text(encoding="utf-8")
    assert "Every method had 3 trials." in page
    assert "it is no result" in page
    with open(whole / "reports" / "slice" / "tuned.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(METHODS)
    assert all(row["tuned_percent"] and row["published_recipe_percent"] for row in rows)


def test_interrupted_in_its_trials_and_before_its_winners_it_ends_the_same(
    whole: Path, tmp_path: Path
) -> None:
    folder = folder_with_grid(tmp_path)
    assert zbench(folder, "sync", "slice.yaml").returncode == 0  # makes the store, unhurried
    interrupt(folder, signal.SIGINT, lambda: trials_done(folder) >= 1)
    first = trials_done(folder)
    assert 1 <= first < TRIALS * len(METHODS)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("runs/cells/*/result.json")}
    interrupt(folder, signal.SIGKILL, lambda: trials_done(folder) >= first + 2)
    interrupt(folder, signal.SIGKILL, lambda: trials_done(folder) == TRIALS * len(METHODS))
    interrupt(folder, signal.SIGKILL, lambda: bool(winners_begun(folder)))
    done = zbench(folder, "run-grid", "slice.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.stat().st_mtime_ns == known for path, known in kept.items())
    report(folder)
    assert chosen(folder) == chosen(whole)
    mine, reference = cells(folder), cells(whole)
    assert mine.keys() == reference.keys()
    for name, result in mine.items():
        assert numbers(result) == numbers(reference[name]), name
    assert adapters(folder) == adapters(whole)
    assert any("tuned" in name for name in adapters(folder))
    tables = [(place / "reports/slice/tuned.csv").read_text() for place in (folder, whole)]
    assert tables[0] == tables[1]


def test_a_run_that_is_done_has_nothing_left(whole: Path) -> None:
    before = adapters(whole)
    again = zbench(whole, "run-grid", "slice.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["outcome"]["done"] == []
    assert adapters(whole) == before
    assert os.listdir(whole / "runs" / "cells")
