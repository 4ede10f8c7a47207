"""Live logging: a store that does not answer costs nothing but time, and nothing is lost."""

from __future__ import annotations

import queue
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from harness.errors import TrackingError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec, expand
from harness.grid.status import read_states
from harness.records.events import CellEnded, CellQueued, CellStarted, Event, StepDone, Warned
from harness.tracking.address import default_uri
from harness.tracking.live import Tracker, _LiveLog
from harness.tracking.runs import GridRuns
from tests.grid.test_loader import GRID
from tests.grid.test_status import scored
from tests.records.test_results import RESULT
from tests.tracking.test_runs import empty_store, store

__all__ = ["empty_store"]


@pytest.fixture
def grid() -> GridSpec:
    return resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)


def events(grid: GridSpec, runs_dir: Path) -> list[Event]:
    """Returns what a cell of two steps tells, with its folder written."""
    cell = expand(grid)[1]
    store(cell, runs_dir, replace(RESULT, scores=scored(cell)))
    (state,) = [s for s in read_states([cell], runs_dir=runs_dir, data_root=None)]
    steps = [StepDone(cell.id, n, 0, 2.0, 0.1, 20.0, 1000 * n) for n in (1, 2)]
    end = CellEnded(cell.id, str(state.folder), 1.0)
    return [CellStarted(cell.id, cell.label, 2, 0), *steps, end]


def test_events_become_one_finished_run(grid: GridSpec, tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    told = events(grid, tmp_path / "elsewhere")
    states = read_states(expand(grid), runs_dir=tmp_path, data_root=None)
    tracker = Tracker(grid, default_uri(tmp_path), tmp_path, states)
    for event in told:
        tracker(event)
    assert tracker.close() is None
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    ((run,),) = runs.cell_runs().values()
    assert run.info.status == "FINISHED"
    history = runs.client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]


def test_a_cell_whose_job_logs_it_is_not_logged_twice(
    grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    states = read_states(expand(grid), runs_dir=tmp_path, data_root=None)
    live = _LiveLog(runs, {state.cell.id: state for state in states})
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    start, *rest = events(grid, tmp_path / "elsewhere")
    queued = CellQueued(start.cell_id, "7_0", before=True, logged=True)
    for event in [queued, start, *rest, None]:
        told.put(event)
    live.follow(told)
    assert runs.cell_runs() == {}
    for event in [replace(queued, logged=False), start, *rest, None]:
        told.put(event)
    live.follow(told)
    assert list(runs.cell_runs()) == [start.cell_id]


def test_a_cell_that_a_fresh_process_takes_on_has_every_step_once(
    grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    states = read_states(expand(grid), runs_dir=tmp_path, data_root=None)
    live = _LiveLog(runs, {state.cell.id: state for state in states})
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    start, first, *rest = events(grid, tmp_path / "elsewhere")
    assert isinstance(first, StepDone)
    warned = Warned(first.cell_id, "out of memory", restarts=True)
    for event in [start, first, warned, start, replace(first, restored=True), *rest, None]:
        told.put(event)
    live.follow(told)
    ((finished, left),) = (
        sorted(found, key=lambda run: run.info.status) for found in runs.cell_runs().values()
    )
    assert (finished.info.status, left.info.status) == ("FINISHED", "KILLED")
    for run, steps in ((finished, [1, 2]), (left, [1])):
        history = runs.client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in history] == steps


def test_what_fails_is_tried_again_and_logged_once(
    grid: GridSpec, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    states = read_states(expand(grid), runs_dir=tmp_path, data_root=None)
    live = _LiveLog(runs, {state.cell.id: state for state in states})
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    for event in [*events(grid, tmp_path / "elsewhere"), None]:
        told.put(event)
    real, calls = runs.client.log_batch, []

    def unsteady(*arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) in (2, 3):  # the server is away for a while
            raise MlflowException("no answer")
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(runs.client, "log_batch", unsteady)
    for _ in range(2):
        with pytest.raises(MlflowException):
            live.follow(told)
    live.follow(told)
    ((run,),) = runs.cell_runs().values()
    assert run.info.status == "FINISHED"
    history = runs.client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.parametrize("at", ["log_batch", "set_terminated"])
def test_a_server_that_is_there_again_at_the_end_lacks_nothing(
    at: str, grid: GridSpec, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    real, failed = getattr(MlflowClient, at), threading.Event()

    def unsteady(*arguments: object, **named: object) -> None:
        if not failed.is_set():
            failed.set()
            raise MlflowException("no answer")
        real(*arguments, **named)

    monkeypatch.setattr(MlflowClient, at, unsteady)
    states = read_states(expand(grid), runs_dir=tmp_path, data_root=None)
    tracker = Tracker(grid, default_uri(tmp_path), tmp_path, states)
    for event in events(grid, tmp_path / "elsewhere"):
        tracker(event)
    assert failed.wait(20)  # it waits for long then
    assert tracker.close() is None
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    ((run,),) = runs.cell_runs().values()
    assert run.info.status == "FINISHED"
    assert runs.client.get_run(runs.parent_id).info.status == "FINISHED"


def test_the_end_is_tried_again_once(
    grid: GridSpec, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    real, calls = GridRuns.close, []

    def unsteady(runs: GridRuns) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise TrackingError("no answer")
        real(runs)

    monkeypatch.setattr(GridRuns, "close", unsteady)
    assert Tracker(grid, default_uri(tmp_path), tmp_path, []).close() is None
    assert len(calls) == 2


def test_a_server_that_never_answers_is_named_at_the_end(
    grid: GridSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(grid, "http://127.0.0.1:9", tmp_path, [])
    assert tracker.close() == "MLflow at http://127.0.0.1:9: no answer (Connection refused)"
