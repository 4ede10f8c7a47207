"""MLflow holds what the cells' folders hold, once, whatever was killed in between."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from harness.errors import TrackingError
from harness.grid.folders import STEPS_FILE, cell_folder, items_path
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.status import CellState, read_states
from harness.grid.tracking_uri import TrackingSpec
from harness.records.files import write_frame
from harness.records.process import process_identity
from harness.records.results import CellError, CellResult, write_result
from harness.tracking.address import default_uri, resolve_uri, shown_uri
from harness.tracking.live import Tracker
from harness.tracking.reading import TrackedResults
from harness.tracking.runners import RUNNER, SILENT_SECONDS
from harness.tracking.runs import GridRuns
from harness.tracking.store import Store, TrackedRun
from tests.grid.test_loader import GRID
from tests.grid.test_status import scored
from tests.records.test_results import RESULT

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.fixture
def grid() -> GridSpec:
    return resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)


@cache
def _store(folder: Path) -> Path:
    folder.mkdir()
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml").model_copy(update={"name": "other"})
    GridRuns(grid, default_uri(folder), folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns an MLflow database with its tables: making them takes seconds."""
    return _store(tmp_path_factory.getbasetemp() / "empty_store")  # one for all files of tests


@pytest.fixture
def runs(grid: GridSpec, tmp_path: Path, empty_store: Path) -> GridRuns:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return GridRuns(grid, default_uri(tmp_path), tmp_path)


def store(cell: Cell, runs_dir: Path, result: CellResult) -> None:
    folder = cell_folder(runs_dir, cell)
    folder.mkdir(parents=True, exist_ok=True)
    steps = {
        "step": [1, 2], "epoch": [0, 1], "loss": [2.0, 1.5], "learning_rate": [0.1, 0.2],
        "tokens": [10, 10], "seconds": [0.5, 1.0], "tokens_per_second": [20.0, 20.0],
        "time_ms": [1000, 2000], "gate/mean_abs": [0.0, 0.25],
    }  # fmt: skip
    write_frame(folder / STEPS_FILE, pd.DataFrame(steps))
    for score in result.scores:
        items = pd.DataFrame({"acc": [1.0, 0.0]})
        write_frame(items_path(folder, score.benchmark, score.key), items)
    write_result(folder, replace(result, cell=cell.record(), cell_id=cell.id))


def finished(cell: Cell, runs_dir: Path) -> None:
    """Writes the folder of a cell that is done."""
    store(cell, runs_dir, replace(RESULT, scores=scored(cell)))


def states(grid: GridSpec, runs_dir: Path) -> list[CellState]:
    return read_states(expand(grid), runs_dir=runs_dir, data_root=None)


def test_a_cell_is_replayed_once_with_all_that_it_holds(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
    assert runs.sync(states(grid, tmp_path)) == 1
    assert runs.sync(states(grid, tmp_path)) == 0
    ((cell_id, (run,)),) = runs.cell_runs().items()
    assert cell_id == cell.id
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "zero-init-linear"
    assert run.data.tags["mlflow.parentRunId"] == runs.parent_id
    assert run.data.metrics["eval/lm-eval/mmlu/acc"] == 0.5
    history = runs.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.5)]
    epochs = runs.client.get_metric_history(run.info.run_id, "train/epoch_loss")
    assert [(point.step, point.value) for point in epochs] == [(0, 2.0), (1, 1.5)]


def test_what_is_read_back_is_what_was_stored(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    result = replace(RESULT, scores=scored(cell))
    store(cell, tmp_path, result)
    runs.sync(states(grid, tmp_path))
    (tracked,) = read(grid, tmp_path)
    assert tracked.result == replace(result, cell=cell.record(), cell_id=cell.id)
    name = str(items_path(Path(), "mmlu", tracked.result.scores[1].key))
    path = runs.store.file(tracked, name)
    assert path is not None
    assert pd.read_parquet(path)["acc"].tolist() == [1.0, 0.0]
    assert runs.store.file(tracked, "items/nothing.parquet") is None


def test_what_a_method_kept_of_its_training_is_read_back(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    assert RESULT.train is not None
    figures = {"probe/prompt_mass_share/after": 0.25, "gate/mean_abs": 0.5}
    train = replace(RESULT.train, final_statistics=figures)
    gates = pd.DataFrame({"step": [1, 2], "strength": [0.0, 0.25]})
    write_frame(cell_folder(tmp_path, cell) / "gates.parquet", gates)
    store(cell, tmp_path, replace(RESULT, scores=scored(cell), train=train))
    runs.sync(states(grid, tmp_path))
    (tracked,) = read(grid, tmp_path)
    path = runs.store.file(tracked, "gates.parquet")
    assert path is not None
    assert not path.is_relative_to(cell_folder(tmp_path, cell))
    assert pd.read_parquet(path).equals(gates)
    assert runs.store.file(tracked, "attention_share.parquet") is None
    (run,) = runs.cell_runs()[cell.id]
    assert run.data.metrics["probe/prompt_mass_share/after"] == 0.25
    # Of the steps: the last one's, not logged again with the result.
    history = runs.client.get_metric_history(run.info.run_id, "gate/mean_abs")
    assert [(point.step, point.value) for point in history] == [(1, 0.0), (2, 0.25)]


def test_added_scores_go_to_the_run_that_holds_the_training(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    store(cell, tmp_path, replace(RESULT, scores=scored(cell)[:1]))
    runs.sync(states(grid, tmp_path))
    store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
    assert runs.sync(states(grid, tmp_path)) == 1
    (run,) = runs.cell_runs()[cell.id]
    assert "eval/lm-eval/mmlu/acc" in run.data.metrics
    (tracked,) = read(grid, tmp_path)
    assert len(tracked.result.scores) == 2


def test_a_killed_run_is_closed_and_the_cell_gets_a_whole_one(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    killed = runs.create_cell_run(cell)
    runs.client.log_metric(killed, "train/loss", 2.0, step=1)
    runs.sync(states(grid, tmp_path))
    assert runs.client.get_run(killed).info.status == "KILLED"
    store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
    runs.sync(states(grid, tmp_path))
    assert [run.info.status for run in runs.cell_runs()[cell.id]] == ["FINISHED", "KILLED"]
    assert len(read(grid, tmp_path)) == 1


def test_a_failure_is_a_failure(grid: GridSpec, runs: GridRuns, tmp_path: Path) -> None:
    cell = expand(grid)[1]
    error = CellError("TrainingError", "the loss is not a number at step 3", "log.txt")
    store(cell, tmp_path, replace(RESULT, train=None, scores=(), error=error))
    runs.sync(states(grid, tmp_path))
    (run,) = runs.cell_runs()[cell.id]
    assert run.info.status == "FAILED"
    assert run.data.tags["zbench.error"] == error.message


def test_a_run_id_in_the_environment_changes_nothing(
    grid: GridSpec, runs: GridRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    again = GridRuns(grid, default_uri(tmp_path), tmp_path)
    assert again.parent_id == runs.parent_id
    cell = expand(grid)[1]
    assert again.create_cell_run(cell) not in (again.create_cell_run(cell), "0" * 32)


def test_one_parent_per_grid(grid: GridSpec, runs: GridRuns, tmp_path: Path) -> None:
    assert GridRuns(grid, default_uri(tmp_path), tmp_path).parent_id == runs.parent_id


def read(grid: GridSpec, runs_dir: Path) -> list[TrackedRun]:
    return list(TrackedResults(grid, default_uri(runs_dir), runs_dir).runs.values())


def counted(runs: GridRuns, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets the number of runs in each answer of the store's search."""
    real, answers = runs.client.search_runs, []

    def search(*arguments: Any, **named: Any) -> Any:
        page = real(*arguments, **named)
        answers.append(len(page))
        return page

    monkeypatch.setattr(runs.client, "search_runs", search)
    return answers


def test_the_store_is_asked_once_for_the_runs_of_all_cells(
    grid: GridSpec, runs: GridRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = expand(grid)
    for cell in cells:
        store(cell, tmp_path, replace(RESULT, scores=scored(cell)[:1]))
    answers = counted(runs, monkeypatch)
    assert runs.sync(states(grid, tmp_path)) == len(cells) > 2
    assert answers == [0]
    for cell in cells:  # more scores of the same trainings
        store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
    assert runs.sync(states(grid, tmp_path)) == len(cells)
    assert answers == [0, len(cells)]
    assert runs.sync(states(grid, tmp_path)) == 0
    assert answers == [0, len(cells), len(cells)]
    runs.replay(states(grid, tmp_path)[0])  # as it is logged live
    assert answers[3:] == [1]


def test_a_file_that_cannot_be_read_is_no_missing_file(
    runs: GridRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    local = TrackedRun("1", "a/lora", "2", RESULT, Path("/nowhere").as_uri())
    assert runs.store.file(local, STEPS_FILE) is None
    remote = replace(local, artifact_uri="mlflow-artifacts:/1/artifacts")
    away = Store("http://127.0.0.1:9", tmp_path)
    with pytest.raises(TrackingError, match="no answer"):
        away.file(remote, STEPS_FILE)


def test_a_server_that_is_down_is_one_line(grid: GridSpec, tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as caught:
        GridRuns(grid, "http://user:secret@127.0.0.1:9", tmp_path)
    assert str(caught.value) == "MLflow at http://***@127.0.0.1:9: no answer (Connection refused)"


def test_a_run_that_another_process_logs_is_left_to_it(
    grid: GridSpec, runs: GridRuns, tmp_path: Path
) -> None:
    cell = expand(grid)[1]
    run_id = runs.create_cell_run(cell)
    code = "import harness.records.process as p; print(p.process_identity(), flush=True); "
    code += "import sys; sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        runs.client.set_tag(run_id, "zbench.owner", other.stdout.readline().decode().strip())
        store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
        assert runs.sync(states(grid, tmp_path)) == 0
        assert runs.client.get_run(run_id).info.status == "RUNNING"
    assert runs.sync(states(grid, tmp_path)) == 1  # and taken up, since it held nothing
    assert runs.client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("same_folder", [True, False])
def test_a_run_of_another_machine_is_left_to_it_while_it_is_heard_of(
    grid: GridSpec, runs: GridRuns, tmp_path: Path, same_folder: bool
) -> None:
    cell = expand(grid)[1]
    run_id = runs.create_cell_run(cell)
    elsewhere = "node7:4711:12:boot:ns:machine"
    runs.client.set_tag(run_id, "zbench.owner", elsewhere)
    if not same_folder:
        runs.client.set_tag(run_id, "zbench.folder", "/scratch/cells/a--0123")
    now = int(time.time())
    runs.client.set_tag(runs.parent_id, f"{RUNNER}1", f"{elsewhere} {now - 60}")
    store(cell, tmp_path, replace(RESULT, scores=scored(cell)))
    assert runs.sync(states(grid, tmp_path)) == 0
    runs.close()
    assert runs.client.get_run(run_id).info.status == "RUNNING"
    assert runs.client.get_run(runs.parent_id).info.status == "RUNNING"
    runs.client.set_tag(runs.parent_id, f"{RUNNER}1", f"{elsewhere} {now - SILENT_SECONDS:.0f}")
    assert runs.sync(states(grid, tmp_path)) == 1
    runs.close()
    assert runs.client.get_run(run_id).info.status in ("KILLED", "FINISHED")
    assert runs.client.get_run(runs.parent_id).info.status == "FINISHED"
    assert not [key for key in runs.client.get_run(runs.parent_id).data.tags if RUNNER in key]


def test_who_logs_says_so_again_and_again(
    grid: GridSpec, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr("harness.tracking.live.BEAT_SECONDS", 0.0)
    tracker = Tracker(grid, default_uri(tmp_path), tmp_path, [])
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    said = set()
    end = time.monotonic() + 60
    while len(said) < 2:
        assert time.monotonic() < end, said
        tags = runs.client.get_run(runs.parent_id).data.tags
        said |= {text for key, text in tags.items() if key.startswith(RUNNER)}
        time.sleep(0.2)
    assert tracker.close() is None
    assert {text.partition(" ")[0] for text in said} == {process_identity()}


def test_the_option_takes_precedence_over_the_environment_over_the_grid(
    grid: GridSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(grid, tmp_path, None) == default_uri(tmp_path)
    tracking = grid.tracking.model_copy(update={"uri": "http://grid"})
    other = grid.model_copy(update={"tracking": tracking})
    assert resolve_uri(other, tmp_path, None) == "http://grid"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert resolve_uri(other, tmp_path, None) == "http://environment"
    assert resolve_uri(other, tmp_path, "http://option") == "http://option"
    assert resolve_uri(other, tmp_path, "none") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert resolve_uri(other, tmp_path, None) is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    nowhere = grid.model_copy(update={"tracking": TrackingSpec(uri="none")})
    assert resolve_uri(nowhere, tmp_path, None) is None
    assert shown_uri(None, tmp_path) == "none"


def test_a_page_for_others_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_uri(default_uri(Path("runs")), Path("runs")) == "sqlite:///runs/mlflow.db"
    assert shown_uri("http://u:p@host", Path("runs")) == "http://***@host"
