"""`zbench run-cell` tells in one line why its cell failed; the traceback is in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from harness.cell.settings import RunSettings
from harness.commands import run_cell
from harness.errors import StorageError
from harness.execution.plan import RunPlan
from harness.grid.folders import cell_folder
from harness.grid.locks import CellBusy, locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.workspace import OpenGrid
from harness.records.event_file import last_events
from harness.records.events import CellEnded, CellStarted, Event, StepDone
from tests.grid.test_loader import GRID


@pytest.mark.parametrize("told", [True, False])
def test_a_failed_cell_is_told_by_one_event(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    told: bool,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    spec = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    cell = expand(spec)[1]
    grid = OpenGrid("g.yaml", spec, [cell], tmp_path, None)

    def fail(_cell: object, _settings: object, emit: run_cell.Emit) -> None:
        if told:
            emit(CellEnded(cell.id, "folder", 1.0, "no place"))
        raise StorageError("no place")

    monkeypatch.setattr(run_cell, "run_cell", fail)
    settings = RunSettings(tmp_path, None, "cpu", 1)
    events: list[Event] = []
    plan = RunPlan(settings=settings, devices=("cpu",))
    assert run_cell._run(grid, plan, 1, events.append) == "failed"
    (event,) = events
    assert isinstance(event, CellEnded)
    assert event.error == "no place"
    assert capfd.readouterr() == ("", "")
    assert "Traceback" in (cell_folder(tmp_path, cell) / "log.txt").read_text()


def test_a_cell_that_runs_here_can_be_followed_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    cell = expand(spec)[1]
    events: list[Event] = [
        CellStarted(cell.id, cell.label, 4, 1000),
        StepDone(cell.id, 1, 0, 1.5, 1e-3, 100.0, 2000),
        CellEnded(cell.id, "folder", 1.0),
    ]

    def run(_cell: object, _settings: object, emit: run_cell.Emit) -> None:
        for event in events:
            emit(event)

    monkeypatch.setattr(run_cell, "run_cell", run)
    plan = RunPlan(settings=RunSettings(tmp_path, None, "cpu", 1), devices=("cpu",))
    grid = OpenGrid("g.yaml", spec, [cell], tmp_path, None)
    assert run_cell._run(grid, plan, 1, [].append) == "done"
    assert last_events(cell_folder(tmp_path, cell)) == events


def test_a_cell_of_several_devices_that_another_process_runs_is_not_done(
    tmp_path: Path,
) -> None:
    spec = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    grid = OpenGrid("g.yaml", spec, [cell := expand(spec)[1]], tmp_path, None)
    plan = RunPlan(settings=RunSettings(tmp_path, None, "cpu", 1), devices=("cpu", "cpu"))
    with locked(cell_folder(tmp_path, cell)), pytest.raises(CellBusy, match="is running this cell"):
        run_cell._run(grid, plan, 2, lambda event: None)
