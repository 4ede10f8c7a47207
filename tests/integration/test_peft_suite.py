"""PEFT's comparison end to end on a tiny model: every cell is trained, scored and reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness.analysis.peft_suite import suite_table
from tests.fixtures.suite_study import STEPS, write_suite_study
from tests.integration.test_end_to_end import zbench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all cells are run, and the report is made."""
    folder = tmp_path_factory.mktemp("suite")
    write_suite_study(folder)
    done = zbench(folder, "run-grid", "suite.yaml", "--workers", "1", timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    made = zbench(folder, "report", "suite.yaml")
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def cells(study: Path) -> dict[str, dict]:
    found = {}
    for file in (study / "runs" / "cells").glob("*/result.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        found[file.parent.name.partition("--")[0]] = result
    return found


def test_61_of_63_published_rows_run_and_the_others_are_named(study: Path) -> None:
    found = cells(study)
    assert len(found) == 62  # with the base model
    assert all(result["error"] is None for result in found.values())
    trained = [result for result in found.values() if result["train"] is not None]
    assert len(trained) == 61
    assert {result["train"]["steps"] for result in trained} == {STEPS}
    assert all({s["benchmark"] for s in one["scores"]} >= {"peft_gsm8k"} for one in trained)
    notes = zbench(study, "plan", "suite.yaml").stdout
    missing = {row.label for row in suite_table().rows} - set(_labels(study))
    assert {label.partition("-")[0] for label in missing} == {"lily"}
    for label in missing:
        assert f"{label} is left out: LILY routes by the mean over all tokens" in notes


def _labels(study: Path) -> list[str]:
    with (study / "reports" / "peft-suite" / "published-runs.csv").open(encoding="utf-8") as file:
        return [row["method"] for row in csv.DictReader(file) if row["measured_percent"]]


def test_the_report_has_published_beside_measured_and_does_not_compare_a_tiny_model(
    study: Path,
) -> None:
    page = (study / "reports" / "peft-suite" / "index.html").read_text(encoding="utf-8")
    assert "tell 4 apart" in page
    assert "are not compared: the model is tiny-llama" in page
    assert (study / "reports" / "peft-suite" / "runs-published.svg").is_file()
    tuning = (study / "reports" / "peft-suite" / "tuning.md").read_text(encoding="utf-8")
    for name in ("IA3", "PROMPT", "PREFIX", "ADAPTION"):
        assert name in tuning


def test_a_second_run_finds_all_done(study: Path) -> None:
    done = zbench(study, "run-grid", "suite.yaml", "--workers", "1")
    assert "62 of 62 cells done" in done.stdout
