"""A tracker that sleeps, raises or dies keeps nobody waiting, and is told once at the end."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from harness.errors import GridError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.tracking_uri import BesideName, TrackingSpec
from harness.records.events import CellEnded
from harness.tracking.beside import process, registry
from harness.tracking.beside.registry import TRACKERS, TrackerEntry, not_installed
from harness.tracking.trackers import start_besides
from tests.grid.test_loader import GRID
from tests.tracking.beside.conftest import state_of, tracked, training


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = TrackerEntry("tests.tracking.beside.odd_trackers", "pytest")
    monkeypatch.setitem(registry.TRACKERS, "odd", entry)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sleeps", "31 of 31 points are not in it (too slow; gave up waiting)"),
        ("raises", "31 of 31 points are not in it (ValueError: no room for token=***)"),
        ("dies", "31 of 31 points are not in it (its process ended (7))"),
    ],
)
@pytest.mark.usefixtures("odd")
def test_an_odd_tracker_loses_its_own_points_and_no_time_of_others(
    grid: GridSpec,
    cell: Cell,
    tmp_path: Path,
    kind: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ODD_TRACKER", kind)
    events = [*training(cell, 30), CellEnded(cell.id, str(tmp_path), 1.0)]
    beside = process.Beside("odd", grid, tmp_path, [state_of(cell, tmp_path)])
    start = time.monotonic()
    for event in events:
        beside(event)
    assert time.monotonic() - start < 5  # the tracker itself would take minutes
    problem = beside.close(6.0)
    assert time.monotonic() - start < 30
    log = tmp_path / "odd" / "zbench.log"
    assert problem == f"odd: {said}; the cells lost nothing; log: {log}"
    assert "hunter2" not in log.read_text()
    assert beside._process is not None
    assert beside._process.poll() is not None  # none is left


@pytest.mark.usefixtures("odd")
def test_what_waits_for_a_tracker_is_bounded(
    grid: GridSpec, cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_TRACKER", "sleeps")
    monkeypatch.setattr(process, "MOST_WAITING", 10)
    monkeypatch.setattr(process.Beside, "_start", lambda self: time.sleep(3600))  # never ready
    beside = process.Beside("odd", grid, tmp_path, [state_of(cell, tmp_path)])
    for event in training(cell, 30):
        beside(event)
    assert len(beside._waiting) <= 11
    assert beside.dropped >= 20


def test_without_events_no_process_is_started(grid: GridSpec, cell: Cell, tmp_path: Path) -> None:
    beside, problem = tracked("tensorboard", grid, cell, tmp_path, [])
    assert problem is None
    assert beside._process is None
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_told_before_anything_runs(
    grid: GridSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.TRACKERS, "wandb", TrackerEntry("none", "no_such_package"))
    tracking = TrackingSpec(also=("wandb",))
    found, told = start_besides(grid.model_copy(update={"tracking": tracking}), tmp_path, [])
    assert found == []
    assert told == [
        "tracking.also: wandb is not installed, and gets nothing; `pip install 'zbench[wandb]'`"
    ]
    assert list(not_installed(["wandb"])) == ["wandb"]


def test_every_name_has_its_code_and_its_extra() -> None:
    assert set(get_args(BesideName)) == set(TRACKERS)
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for name, entry in TRACKERS.items():
        assert extras[name][0].startswith(entry.package)


def test_other_trackers_change_no_cell() -> None:
    raw = yaml.safe_load(GRID)
    ids = [cell.id for cell in expand(resolve_grid(raw, place="g.yaml"))]
    raw["tracking"] = {"also": ["wandb", "tensorboard"], "uri": "none"}
    with_others = resolve_grid(raw, place="g.yaml")
    assert with_others.tracking.also == ("wandb", "tensorboard")
    assert [cell.id for cell in expand(with_others)] == ids
    raw["tracking"] = {"also": "wandb"}
    assert resolve_grid(raw, place="g.yaml").tracking.also == ("wandb",)


def test_an_unknown_tracker_is_refused_with_its_place() -> None:
    raw = yaml.safe_load(GRID) | {"tracking": {"also": ["wandb", "tensorbord"]}}
    with pytest.raises(GridError, match=r"tracking\.also\[1\].*tensorboard"):
        resolve_grid(raw, place="g.yaml")
