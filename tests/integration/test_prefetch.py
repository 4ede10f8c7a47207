"""A grid of hub names, prefetched from a hub on this machine and run once that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.results import read_result
from tests.fixtures.hub_server import serving
from tests.fixtures.hub_study import GRID, fill_hub

pytestmark = pytest.mark.slow


def zbench(folder: Path, *words: str, hub: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: the hub's client reads its settings at import."""
    own = {"HF_ENDPOINT": hub, "HOME": str(folder / "home"), "HF_HOME": str(folder / "home" / "hf")}
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    known.pop("ZBENCH_DATA_ROOT", None)
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        cwd=folder,
        env=known | own | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )


def planned(folder: Path, *words: str, hub: str) -> list[str]:
    done = zbench(folder, "plan", "away.yaml", "--json", *words, hub=hub)
    return [cell["cell_id"] for cell in json.loads(done.stdout)["cells"]]


def test_a_prefetched_grid_runs_without_a_hub_and_with_the_hubs_ids(tmp_path: Path) -> None:
    (tmp_path / "away.yaml").write_text(GRID)
    with serving(fill_hub(tmp_path / "served")) as hub:
        fetched = zbench(tmp_path, "prefetch", "away.yaml", "--to", "kept", hub=hub.address)
        assert fetched.returncode == 0, fetched.stderr
        assert "whole: `zbench run-grid away.yaml --data-root" in fetched.stdout
        asked, commit = len(hub.asked), hub.commit("lab/tiny")
        ids = planned(tmp_path, hub=hub.address)
        again = zbench(tmp_path, "prefetch", "away.yaml", "--to", "kept", hub=hub.address)
        assert again.returncode == 0
        assert not [line for line in hub.asked[asked:] if "/resolve/" in line]
    moved = tmp_path / "elsewhere"
    (tmp_path / "kept").rename(moved)  # as a copy on a cluster
    run = zbench(tmp_path, "run-grid", "away.yaml", "--data-root", str(moved), hub=hub.address)
    assert run.returncode == 0, run.stderr + run.stdout
    folders = sorted((tmp_path / "runs" / "cells").iterdir())
    assert sorted(folder.name.split("--")[-1] for folder in folders) == sorted(ids)
    assert planned(tmp_path, "--data-root", str(moved), hub=hub.address) == ids
    for folder in folders:
        result = read_result(folder)
        assert result is not None
        assert result.base["commit"] == commit
        assert result.base["source"] == "lab/tiny"
