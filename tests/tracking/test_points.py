"""Each point once, in one run, wherever a process is killed or an answer is lost."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec, expand
from harness.records.events import Event
from harness.records.process import process_identity
from harness.tracking import runs as runs_module
from harness.tracking.address import default_uri
from harness.tracking.live import _LiveLog
from harness.tracking.metrics import mlflow_name
from harness.tracking.points import lacking_points
from harness.tracking.runs import GridRuns
from tests.grid.test_loader import GRID
from tests.grid.test_status import scored
from tests.records.test_results import RESULT
from tests.tracking.test_live import events
from tests.tracking.test_runs import empty_store, finished, states, store

__all__ = ["empty_store"]

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

WRITES = ("create_run", "log_batch", "set_tag", "set_terminated", "update_run")


class Cut(MlflowException):
    """The process ends here, or the answer is lost."""


@pytest.fixture
def folder(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def grid_of(number: object) -> GridSpec:
    """Returns a grid with an experiment of its own."""
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    tracking = grid.tracking.model_copy(update={"experiment": f"e{number}"})
    return grid.model_copy(update={"tracking": tracking})


def cut_after(client: Any, number: int) -> list[str]:
    """Has a client raise once, after its write of this number was done; returns its writes."""
    done: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            answer = real(*arguments, **named)
            done.append(name)
            if len(done) == number:
                raise Cut(f"lost the answer of {name}")
            return answer

        return write

    for name in WRITES:
        setattr(client, name, wrap(name, getattr(client, name)))
    return done


def of_another_start() -> str:
    host, pid, _, *rest = process_identity().rsplit(":", 5)
    return ":".join((host, pid, "1", *rest))


def told(grid: GridSpec, folder: Path) -> queue.SimpleQueue[Event | None]:
    waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    for event in [*events(grid, folder), None]:
        waiting.put(event)
    return waiting


def check_points(runs: GridRuns, run: Run) -> None:
    """Checks that a run has every point of the cell, and each once."""
    assert run.info.status == "FINISHED"
    for key in run.data.metrics:
        history = runs.client.get_metric_history(run.info.run_id, key)
        assert max(Counter(point.step for point in history).values()) == 1, key
    steps = runs.client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in steps) == [1, 2]
    assert "eval/lm-eval/mmlu/acc" in run.data.metrics
    assert run.data.params["method"] == "zero-init-linear"


EVERY = [pytest.param(1, marks=pytest.mark.slow), 3]
"""Every point in time, or every third."""


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("live", [True, False], ids=["live", "sync"])
def test_after_a_kill_at_any_point_sync_makes_it_whole(
    live: bool, every: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = expand(grid_of(0))[1]
    finished(cell, folder)
    for number in range(every, 40, every):
        grid = grid_of(number)
        with monkeypatch.context() as killed:
            killed.setattr(runs_module, "process_identity", of_another_start)
            runs = GridRuns(grid, default_uri(folder), folder, live=True)
            done = cut_after(runs.client, number)
            try:
                if live:
                    found = states(grid, folder)
                    log = _LiveLog(runs, {state.cell.id: state for state in found})
                    log.follow(told(grid, folder))
                else:
                    runs.sync(states(grid, folder))
            except Exception:  # the process ends
                assert len(done) == number
            else:
                break
        again = GridRuns(grid, default_uri(folder), folder)
        assert again.client.get_run(again.parent_id).info.status == "RUNNING"
        again.sync(states(grid, folder))
        again.close()
        assert again.client.get_run(again.parent_id).info.status == "FINISHED"
        found_runs = again.cell_runs()[cell.id]
        whole = [run for run in found_runs if run.info.status == "FINISHED"]
        assert len(whole) == 1, number
        check_points(again, whole[0])
        assert {run.info.status for run in found_runs} <= {"FINISHED", "KILLED"}, number
        assert all(run.data.metrics for run in found_runs)
    assert number > 5


@pytest.mark.parametrize("every", EVERY)
def test_a_lost_answer_makes_no_second_run(every: int, folder: Path) -> None:
    cell = expand(grid_of(0))[1]
    for number in range(every, 40, every):
        grid = grid_of(number)
        runs = GridRuns(grid, default_uri(folder), folder, live=True)
        cut_after(runs.client, number)
        found = states(grid, folder)
        log = _LiveLog(runs, {state.cell.id: state for state in found})
        waiting = told(grid, folder)
        try:
            log.follow(waiting)
        except Cut:
            log.follow(waiting)  # as the tracker does
        else:
            break
        (run,) = runs.cell_runs()[cell.id]
        check_points(runs, run)
    assert number > 5


@pytest.mark.parametrize("late", [False, True])
def test_a_second_run_that_a_server_made_does_not_stay_open(late: bool, folder: Path) -> None:
    grid = grid_of(0)
    runs = GridRuns(grid, default_uri(folder), folder, live=True)
    runs.store.database = None  # as of a server
    real, cell = runs.client.create_run, expand(grid)[1]
    sent: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def twice(*arguments: Any, **named: Any) -> Any:
        sent.append((arguments, named))
        if not late:
            real(*arguments, **named)  # its answer was lost, and the request sent again
        return real(*arguments, **named)

    runs.client.create_run = twice  # type: ignore[method-assign]
    run_id = runs.create_cell_run(cell)
    if late:
        ((arguments, named),) = sent
        real(*arguments, **named)
    runs.client.set_terminated(run_id)
    found = {run.info.run_id: run.info.status for run in runs.cell_runs()[cell.id]}
    assert found.pop(run_id) == "FINISHED"
    assert list(found.values()) == ["RUNNING"] * late
    runs.close()
    assert {run.info.status for run in runs.cell_runs()[cell.id]} == (
        {"FINISHED", "KILLED"} if late else {"FINISHED"}
    )


def test_added_scores_double_no_point(folder: Path) -> None:
    grid = grid_of(0)
    cell = expand(grid)[1]
    runs = GridRuns(grid, default_uri(folder), folder)
    for scores in (scored(cell)[:1], scored(cell)):
        store(cell, folder, replace(RESULT, scores=scores))
        assert runs.sync(states(grid, folder)) == 1
    (run,) = runs.cell_runs()[cell.id]
    check_points(runs, run)


def test_another_value_of_a_score_makes_a_run_of_its_own(folder: Path) -> None:
    grid = grid_of(0)
    cell = expand(grid)[1]
    runs = GridRuns(grid, default_uri(folder), folder)
    values = (0.25, 0.75)
    for value in values:
        scores = tuple(replace(score, value=value) for score in scored(cell))
        store(cell, folder, replace(RESULT, scores=scores))
        assert runs.sync(states(grid, folder)) == 1
    newest, oldest = runs.cell_runs()[cell.id]
    for run, value in ((oldest, values[0]), (newest, values[1])):
        check_points(runs, run)
        assert run.data.metrics["eval/lm-eval/mmlu/acc"] == value


def test_numbers_that_are_none_are_alike(folder: Path) -> None:
    runs = GridRuns(grid_of(0), default_uri(folder), folder)
    points = [Metric("a", float("nan"), 1, 0), Metric("b", float("inf"), 1, 0)]
    points += [Metric("c", 0.1, 1, step) for step in (0, 1)]
    runs.store.log_metrics(runs.parent_id, points)
    run = runs.client.get_run(runs.parent_id)
    again = [Metric(point.key, point.value, 2, point.step) for point in points]
    found = lacking_points(runs.client, run, [*again, Metric("c", 0.1, 2, 2)])
    assert [(point.key, point.step) for point in found.new] == [("c", 2)]
    assert found.unlike == []
    assert lacking_points(runs.client, run, [Metric("c", 0.2, 2, 1)]).unlike


def test_the_grid_runs_until_the_last_of_its_processes_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(0)
    mine = GridRuns(grid, default_uri(folder), folder, live=True)
    synced = GridRuns(grid, default_uri(folder), folder)
    monkeypatch.setattr(runs_module, "process_identity", lambda: "elsewhere:1")
    synced.close()  # `sync` of another process

    def status() -> str:
        return str(mine.client.get_run(mine.parent_id).info.status)

    assert status() == "RUNNING"
    monkeypatch.undo()
    mine.close()
    assert status() == "FINISHED"


def test_several_at_once_make_one_grid_run(folder: Path) -> None:
    grid = grid_of(0)
    cell = expand(grid)[1]
    finished(cell, folder)
    faults: list[BaseException] = []

    def sync() -> None:
        try:
            runs = GridRuns(grid, default_uri(folder), folder)
            runs.sync(states(grid, folder))
            runs.close()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=sync) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    runs = GridRuns(grid, default_uri(folder), folder)
    assert len(runs._grid_runs()) == 1
    (run,) = runs.cell_runs()[cell.id]
    check_points(runs, run)


def test_of_a_lost_answer_comes_neither_an_error_nor_a_second_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does it: the client sends a request again until an answer comes."""

    def sent_three_times(name: str) -> None:
        real = getattr(MlflowClient, name)

        def send(*arguments: Any, **named: Any) -> Any:
            with contextlib.suppress(MlflowException):
                real(*arguments, **named)
                real(*arguments, **named)
            return real(*arguments, **named)

        monkeypatch.setattr(MlflowClient, name, send)

    for name in ("create_experiment", "create_run", "delete_tag"):
        sent_three_times(name)
    grid = grid_of(0)
    runs = GridRuns(grid, default_uri(folder), folder, live=True)
    assert [run.info.run_id for run in runs._grid_runs()] == [runs.parent_id]
    runs.close()
    assert runs.client.get_run(runs.parent_id).info.status == "FINISHED"


def test_a_grid_run_that_is_in_use_is_never_deleted(folder: Path) -> None:
    grid = grid_of(0)
    live = GridRuns(grid, default_uri(folder), folder, live=True)
    tags = {"zbench.kind": "grid", "zbench.grid": grid.name, "zbench.owner": "elsewhere"}
    others = []
    for start_time in (1, 2):  # earlier ones: the first is taken, the other has been ended
        run = live.client.create_run(live.experiment_id, start_time=start_time, tags=tags)
        others.append(run.info.run_id)
    live.client.set_terminated(others[1])
    assert GridRuns(grid, default_uri(folder), folder).parent_id == others[0]
    assert {run.info.run_id for run in live._grid_runs()} == {*others, live.parent_id}


def test_of_two_grid_runs_the_first_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(0)
    first = GridRuns(grid, default_uri(folder), folder)
    real, calls = GridRuns._grid_runs, []

    def late(self: GridRuns) -> list[Run]:
        calls.append(1)
        return [] if len(calls) == 1 else real(self)  # the other one came between

    monkeypatch.setattr(GridRuns, "_grid_runs", late)
    assert GridRuns(grid, default_uri(folder), folder).parent_id == first.parent_id
    assert len(real(first)) == 1


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("acc_norm", "acc_norm"),
        ("exact_match,strict-match", "exact_match/strict-match"),
        ("pass@1,create_test", "pass_1/create_test"),
        ("chrf++", "chrf__"),
    ],
)
def test_any_metric_has_a_name_that_mlflow_takes(metric: str, name: str) -> None:
    assert mlflow_name(metric) == name
