from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.grid.schema import Cell
from harness.grid.workspace import open_grid
from harness.prepare.offline import has_no_network, refuse_missing
from harness.records.prefetched import MANIFEST_FILE
from tests.fixtures.hub_study import GRID


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a grid of hub names, where the hub's cache is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "ZBENCH_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "away.yaml").write_text(GRID)
    return tmp_path / "away.yaml"


def refusal(grid: Path, executor: str, data_root: Path | None = None) -> str | None:
    states = open_grid(str(grid), grid.parent / "runs", None, None).states
    try:
        refuse_missing(states, data_root, executor=executor, grid=grid.name)
    except UsageError as fault:
        return str(fault)
    return None


def test_a_run_without_network_is_refused_in_one_line_that_says_what_to_fetch(
    grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refusal(grid, "local")
    assert said == (
        "not on this machine, and there is no network to fetch it: model lab/tiny@main, "
        "benchmark allenai/ai2_arc, data lab/rows@main; where there is network, run `zbench "
        "prefetch away.yaml --to DIR`, then give --data-root DIR"
    )


def test_the_nodes_of_a_cluster_have_no_network_unless_that_is_said(
    grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(grid, "local") is None
    assert "HF_HUB_OFFLINE=0" in str(refusal(grid, "slurm"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert refusal(grid, "slurm") is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert [has_no_network(name) for name in ("local", "slurm", "ray")] == [True] * 3


def test_what_a_prefetch_has_begun_and_not_ended_is_missing(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "models--lab--tiny": False,
        "datasets--lab--rows": False,
        "datasets--allenai--ai2_arc": 1,
    }
    for name in names:
        (tmp_path / "hub" / name / "snapshots" / "c" / "x").mkdir(parents=True)
    entries = [
        {"name": "lab/rows", "complete": False},
        {"name": "allenai/ai2_arc", "complete": True},
    ]
    manifest = {"repositories": {str(number): one for number, one in enumerate(entries)}}
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = str(refusal(grid, "local", tmp_path))
    assert "data lab/rows@main (not whole)" in said
    assert "allenai/ai2_arc" not in said
    assert f"zbench prefetch away.yaml --to {tmp_path}`" in said
    (tmp_path / MANIFEST_FILE).write_text('{"repositories": {"a": 1}}')
    assert "manifest is damaged" in str(refusal(grid, "local", tmp_path))


def test_ids_are_those_of_the_hubs_names_whatever_the_data_root(grid: Path, tmp_path: Path) -> None:
    def ids(data_root: Path | None) -> list[str]:
        cells: list[Cell] = open_grid(str(grid), tmp_path / "runs", data_root, None).cells
        return [cell.id for cell in cells]

    other = tmp_path / "other"
    other.mkdir()
    assert ids(None) == ids(other)
