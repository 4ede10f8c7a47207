"""Mutants of runs folders: every command tells what is damaged, and shows or mends the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import world_folder, write_world
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from tests.fuzz.conftest import Watch, mutants
from tests.fuzz.mutants import damaged, documents
from tests.fuzz.test_grids import SHAPE

READING = ["status", "plan", "verify", "clean"]
"""Commands that end in a tenth of a second."""


@pytest.fixture(scope="module")
def good(home: Path) -> Path:
    """A runs folder with a base model and a trained one, both scored on five items."""
    grid: dict[str, Any] = {
        "name": "runs",
        "world": "demo",
        "models": {"tiny": {"path": "model", "shape": SHAPE}},
        "data": {"source": None, "path": "alpaca/train.parquet", "num_rows": 600},
        "train": {"epochs": 1, "batch_size": 16, "warmup_ratio": 0.1},
        "tasks": [{"name": "demo_arc_easy", "limit": 5}],
        "blocks": [
            {
                "methods": ["base", {"method": "lora", "train": {"learning_rate": 0.003}}],
                "fractions": [0.03],
            }
        ],
    }
    (home / "runs.yaml").write_text(json.dumps(grid))
    folder = home / "good"
    write_world(world_folder(folder))
    settings = RunSettings(folder, world_folder(folder), threads=1)
    for cell in expand(load_grid(home / "runs.yaml")):
        run_cell(cell, settings, emit=lambda event: None)
    return folder


def test_mutants_of_a_runs_folder(watch: Watch, home: Path, good: Path) -> None:
    copy = home / "copy"
    files = sorted(
        path.relative_to(good)
        for path in (good / "cells").rglob("*")
        if path.is_file() and path.suffix in {".json", ".parquet", ".safetensors", ".lock"}
    )

    def run(command: str) -> Any:
        return watch.zbench(command, str(home / "runs.yaml"), "--runs-dir", str(copy))

    def restore() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)

    restore()
    assert "2 done" in run("status").text

    @mutants(quick=10, long=300)
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        restore()
        file = data.draw(st.sampled_from(files))
        change = data.draw(
            st.sampled_from(["content", "content", "content", "folder", "gone", "more"])
        )
        place = copy / file
        if change == "content":
            before = (good / file).read_bytes()
            as_document = file.suffix == ".json" and data.draw(st.booleans())
            place.write_bytes(
                json.dumps(data.draw(documents(json.loads(before)))).encode(
                    "utf-8", "surrogatepass"
                )
                if as_document
                else data.draw(damaged(before))
            )
        elif change == "more":
            name = data.draw(
                st.sampled_from(["checkpoints/step-abc", "checkpoints/step-1", "x", "--"])
            )
            (place.parent / name).mkdir(parents=True, exist_ok=True)
        else:
            place.unlink()
            if change == "folder":
                place.mkdir()
        with watch.trial("runs folders") as found:
            codes = [run(command).code for command in READING]
            if data.draw(st.integers(0, 9)) == 0:
                arguments = ["--runs-dir", str(copy), "--reports-dir", str(home / "reports")]
                codes.append(watch.zbench("report", str(home / "runs.yaml"), *arguments).code)
            found.refused += any(codes)

    try_one()
