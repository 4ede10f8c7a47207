"""A cell of demo-pictures, as a user runs it: it answers by what it sees; controls fail."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.test_end_to_end import results, zbench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # whole processes, of one whole cell

LABEL = "tiny-llama/zero-init-linear/100%/seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    done = zbench(folder, "run-grid", "demo-pictures", "--only", LABEL, "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_answers_follow_the_picture(folder: Path) -> None:
    """450 items of four options: a guess is right in 25%, with a standard error of 2 points."""
    (result,) = results(folder).values()
    found = {s["task"]: s["value"] for s in result["scores"] if s["metric"] == "acc"}
    assert found["demo_pictures"] > 0.7
    assert found["demo_pictures_shuffled"] < 0.45
    assert found["demo_pictures_removed"] < 0.45
    assert found["demo_arc_easy"] > 0.4


def test_another_picture_changes_the_answer_in_the_records_too(folder: Path) -> None:
    (result,) = results(folder).values()
    assert result["train"]["final_statistics"]["picture_changes"] > 0.5
    assert result["train"]["note"] is None


def test_records_tell_what_was_asked_and_shown(folder: Path) -> None:
    frames = {}
    for path in folder.glob("runs/cells/*/**/*.parquet"):
        columns = pd.read_parquet(path).columns
        if {"asked", "pair"} <= {*columns}:
            frame = pd.read_parquet(path)
            frames[frame["task"].iloc[0]] = frame
    shown, shuffled, removed = (frames[f"demo_pictures{c}"] for c in ("", "_shuffled", "_removed"))
    assert list(shown["question_id"]) == list(shuffled["question_id"])
    assert shown["picture"].notna().all()
    assert sorted(shown["picture"]) == sorted(shuffled["picture"])
    assert (shown["picture"] != shuffled["picture"]).all()
    assert "picture" not in removed or removed["picture"].isna().all()


def test_the_page_shows_the_pictures(folder: Path) -> None:
    done = zbench(folder, "report", "demo-pictures", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    page = (folder / "reports" / "demo-pictures" / "index.html").read_text()
    assert "data:image/" in page
    assert "unseen pairs" in page
