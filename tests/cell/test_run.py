"""One cell's life: what it costs, what it refuses, what it keeps to when it goes on."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from harness.cell.run import describe, record_failure, run_cell
from harness.cell.settings import RunSettings
from harness.data.spec import DataSpec
from harness.demo.world import write_world
from harness.errors import DataError, MethodError, ModelError, StorageError
from harness.grid.folders import ADAPTER_FOLDER, cell_folder
from harness.grid.locks import CellBusy, locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.methods import METHODS
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from harness.records.events import Event, StepDone, Warned
from harness.records.results import (
    DAMAGED_FILE,
    RESULT_FILE,
    CellResult,
    read_result,
    write_result,
)
from tests.fixtures.tiny_checkpoint import edit_json
from tests.integration.test_end_to_end import grid_text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


@pytest.fixture(scope="module")
def cell() -> Cell:
    grid = resolve_grid(yaml.safe_load(grid_text()), place="slice.yaml")
    trained = expand(grid)[1]
    return trained.model_copy(update={"tasks": trained.tasks[:1]})


@pytest.fixture(scope="module")
def finished(cell: Cell, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a runs folder in which the cell is done."""
    runs_dir = tmp_path_factory.mktemp("runs")
    run_cell(cell, RunSettings(runs_dir=runs_dir, data_root=world), lambda event: None)
    return runs_dir


def without_scores(cell: Cell, runs_dir: Path, **change: object) -> None:
    folder = cell_folder(runs_dir, cell)
    result = read_result(folder)
    assert result is not None
    write_result(folder, replace(result, scores=(), **change))  # type: ignore[arg-type]


def test_a_cell_scored_again_keeps_to_the_precision_it_was_trained_in(
    cell: Cell, world: Path, finished: Path
) -> None:
    folder = cell_folder(finished, cell)
    before = read_result(folder)
    assert before is not None
    without_scores(cell, finished, base={**before.base, "precision": "bf16"})
    settings = RunSettings(runs_dir=finished, data_root=world)
    scored = run_cell(cell, settings, lambda event: None)
    assert {score.precision for score in scored.scores} == {"bf16"}
    write_result(folder, before)


def test_trained_tensors_are_not_put_on_other_weights(
    cell: Cell, world: Path, finished: Path
) -> None:
    folder = cell_folder(finished, cell)
    before = read_result(folder)
    assert before is not None
    without_scores(cell, finished, base={**before.base, "weights_sha256": "0" * 64})
    settings = RunSettings(runs_dir=finished, data_root=world)
    with pytest.raises(ModelError, match="the base model has changed since the cell was made"):
        run_cell(cell, settings, lambda event: None)
    write_result(folder, before)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_damaged_weights_are_told_and_not_scored(
    name: str, cell: Cell, world: Path, finished: Path
) -> None:
    folder = cell_folder(finished, cell)
    before = read_result(folder)
    assert before is not None
    assert before.train is not None
    file = folder / ADAPTER_FOLDER / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    without_scores(cell, finished)
    settings = RunSettings(runs_dir=finished, data_root=world)
    with pytest.raises(ModelError, match="the trained weights are damaged or were changed"):
        run_cell(cell, settings, lambda event: None)
    after = read_result(folder)
    assert after is not None
    assert after.scores == ()
    file.write_bytes(whole)  # the advice: from a copy
    assert run_cell(cell, settings, lambda event: None).scores
    assert before.train.weights_sha256 is not None
    without_scores(cell, finished, train=replace(before.train, weights_sha256=None))
    assert run_cell(cell, settings, lambda event: None).scores  # an older version's result
    write_result(folder, before)


def test_each_evaluation_keeps_where_and_with_what_it_was_made(
    cell: Cell, world: Path, finished: Path
) -> None:
    folder = cell_folder(finished, cell)
    before = read_result(folder)
    assert before is not None
    made_in = before.evaluation_environments
    assert set(made_in) == {score.evaluation for score in before.scores}
    for environment in made_in.values():
        assert {"torch", "transformers", "lm_eval", "device"} <= set(environment)
    assert before.train is not None
    assert before.train.data_content_sha256 is not None
    assert {score.bos for score in before.scores} == {"token 0"}
    without_scores(cell, finished, environment={"torch": "0.1"})
    settings = RunSettings(runs_dir=finished, data_root=world)
    later = run_cell(cell, settings, lambda event: None)
    assert later.environment == {"torch": "0.1"}
    assert all(entry["torch"] != "0.1" for entry in later.evaluation_environments.values())
    write_result(folder, before)


def test_a_tokenizer_without_its_bos_is_told_at_load_and_beside_the_score(
    cell: Cell, world: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(world, tmp_path / "world")
    file = root / "model" / "tokenizer.json"
    edit_json(file, post_processor=None)
    base = cell.model_copy(
        update={"method": "base", "options": METHODS["base"].options(), "train": None,
                "fraction": None, "seed": None}
    )  # fmt: skip
    told: list[Event] = []
    result = run_cell(base, RunSettings(runs_dir=tmp_path / "runs", data_root=root), told.append)
    (notice,) = [event for event in told if isinstance(event, Warned)]
    assert "puts no BOS before a text" in notice.message
    assert {score.note for score in result.scores} == {notice.message}
    assert {score.bos for score in result.scores} == {"none"}


def test_other_training_data_than_the_pinned_are_told_beside_every_score(
    cell: Cell, world: Path, tmp_path: Path
) -> None:
    data = cell.data.model_copy(update={"source": "tatsu-lab/alpaca"})
    told: list[Event] = []
    result = run_cell(
        cell.model_copy(update={"data": data}),
        RunSettings(runs_dir=tmp_path, data_root=world),
        told.append,
    )
    (notice,) = [event for event in told if isinstance(event, Warned)]
    assert notice.message.startswith("training data differs from the pinned version")
    assert {score.note for score in result.scores} == {notice.message}


def test_a_method_that_miscounts_is_refused_before_the_first_step(
    cell: Cell, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, told = METHODS[cell.method], []
    counted = method.count_parameters(cell.model.shape, cell.options)
    miscounting = replace(method, count_parameters=lambda shape, options: counted + 1)
    monkeypatch.setitem(METHODS._own, cell.method, miscounting)
    with pytest.raises(
        MethodError, match=rf"gives {counted + 1} .* leaves {counted} with"
    ) as caught:
        run_cell(cell, RunSettings(runs_dir=tmp_path, data_root=world), told.append)
    assert cell.label in str(caught.value)
    assert not any(isinstance(event, StepDone) for event in told)


def test_a_cell_that_another_process_runs_is_left_to_it(
    cell: Cell, world: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    with locked(cell_folder(tmp_path, cell)), pytest.raises(CellBusy):
        run_cell(cell, RunSettings(runs_dir=tmp_path, data_root=world), told.append)
    assert told == []
    assert read_result(cell_folder(tmp_path, cell)) is None


def test_damaged_files_are_told_and_made_anew_with_the_same_numbers(
    cell: Cell, world: Path, finished: Path
) -> None:
    folder = cell_folder(finished, cell)
    told: list[str] = []
    before = read_result(folder)
    assert before is not None
    (items,) = (folder / "items").iterdir()
    assert set(before.files_sha256) >= {f"items/{items.name}", "steps.parquet"}
    items.write_bytes(items.read_bytes()[:100])
    (state,) = read_states([cell], runs_dir=finished, data_root=world)
    assert (state.status, state.missing) == ("to do", cell.tasks)
    assert state.damaged[0].startswith(f"{items}: damaged")

    def run() -> CellResult:
        told.clear()
        settings = RunSettings(runs_dir=finished, data_root=world)
        events: list[Event] = []
        result = run_cell(cell, settings, events.append)
        told.extend(event.message for event in events if isinstance(event, Warned))
        return result

    again = run()
    assert any("damaged (its SHA-256 is another); run-grid scores" in line for line in told)
    assert (again.scores, again.files_sha256) == (before.scores, before.files_sha256)
    path = folder / RESULT_FILE
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    (state,) = read_states([cell], runs_dir=finished, data_root=world)
    assert state.status == "failed"
    assert "run-grid puts it aside and runs the cell again" in (state.fault or "")
    anew = run()
    assert any("put aside as result.damaged.json" in line for line in told)
    assert (folder / DAMAGED_FILE).is_file()
    assert anew.train is not None
    assert before.train is not None
    assert anew.train.epoch_losses == before.train.epoch_losses
    assert anew.scores == before.scores


def test_a_failure_takes_nothing_away(cell: Cell, finished: Path) -> None:
    folder = cell_folder(finished, cell)
    before = read_result(folder)
    assert before is not None
    record_failure(cell, folder, StorageError("the disk is full"))
    after = read_result(folder)
    assert after is not None
    assert after.error is not None
    assert after.error.message == "the disk is full"
    assert replace(after, error=None) == before
    write_result(folder, before)


def test_errors_are_told_in_one_line() -> None:
    assert describe(StorageError("a\nb")) == "a"
    said = "unexpected fault (why); the log has its traceback"
    assert describe(ValueError("why")) == said
    out_of_memory = torch.OutOfMemoryError("CUDA out of memory. Tried ...")
    assert "free the memory of other processes, or use a larger GPU" in describe(out_of_memory)
    full = OSError(errno.ENOSPC, "No space left on device", "runs/a")
    assert describe(full).startswith("runs/a: cannot be written (No space left on device); free")
    on_cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")
    assert "or use a larger machine" in describe(on_cpu)


def test_other_rows_than_those_of_the_grids_other_cells_are_refused(
    cell: Cell, world: Path, tmp_path: Path
) -> None:
    """A branch of the hub may have moved; here a local copy stands for it."""
    hub = cell.model_copy(
        update={"data": DataSpec(source="lab/mine", path="alpaca/train.parquet"), "world": None}
    )
    settings = RunSettings(tmp_path, world, data_contents={"lab/mine@main": "0" * 64})
    with pytest.raises(DataError, match="lab/mine@main: its rows .* are not those that other cel"):
        run_cell(hub, settings, lambda event: None)


def test_a_file_that_changed_since_the_grid_was_read_is_refused(
    cell: Cell, world: Path, tmp_path: Path
) -> None:
    data = DataSpec(path=str(world / "alpaca" / "train.parquet"))
    own = cell.model_copy(update={"data": data, "data_sha256": "0" * 64})
    with pytest.raises(DataError, match="has changed since the grid was read"):
        run_cell(own, RunSettings(tmp_path, world), lambda event: None)
