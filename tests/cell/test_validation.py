"""A cell with validation rows: its events and its result, and the same bits after a kill."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.data.spec import DataSpec
from harness.data.validation import read_validation
from harness.demo.world import write_world
from harness.errors import UsageError
from harness.grid.folders import CHECKPOINTS_FOLDER, cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.grid.workspace import open_to_run
from harness.records.events import EpochValidated, Event, StepDone
from harness.records.results import CellResult, TrainResult
from harness.tracking.metrics import result_metrics, validation_metrics
from harness.training.signals import Stopped
from tests.integration.test_end_to_end import grid_text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


def cell_of(keep: str, share: float | None = 0.05) -> Cell:
    raw = yaml.safe_load(grid_text())
    raw["data"] |= {} if share is None else {"validation": {"fraction": share}}
    raw["train"] |= {"epochs": 3, "keep": keep, "learning_rate": 0.4, "schedule": "constant"}
    del raw["methods"]["zero-init-linear"]["train"]
    trained = expand(resolve_grid(raw, place="g.yaml"))[1]
    return trained.model_copy(update={"tasks": trained.tasks[:1]})


def trained(result: CellResult) -> TrainResult:
    assert result.train is not None
    return replace(result.train, seconds=0.0, tokens_per_second=0.0, peak_memory_bytes=0)


def test_a_killed_cell_measures_and_keeps_the_same(world: Path, tmp_path: Path) -> None:
    cell, told = cell_of("best"), []
    settings = RunSettings(runs_dir=tmp_path / "whole", data_root=world)
    whole = trained(run_cell(cell, settings, told.append))
    rows = read_validation(cell.data, world)
    assert rows is not None
    assert whole.validation_examples == len(rows.rows) == 30
    assert len(whole.validation_losses) == 3
    assert whole.kept_epoch == whole.validation_losses.index(min(whole.validation_losses)) < 2
    found = [event for event in told if isinstance(event, EpochValidated)]
    assert [event.loss for event in found] == list(whole.validation_losses)

    again = RunSettings(runs_dir=tmp_path / "killed", data_root=world)
    last = max(event.step for event in told if isinstance(event, StepDone))
    for stop_at in (last // 3, last - 2):

        def stop(event: Event, at: int = stop_at) -> None:
            if isinstance(event, StepDone) and event.step == at and not event.restored:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Stopped):
            run_cell(cell, again, stop)
    resumed: list[Event] = []
    assert trained(run_cell(cell, again, resumed.append)) == whole
    repeated = [event for event in resumed if isinstance(event, EpochValidated)]
    assert [event.loss for event in repeated] == list(whole.validation_losses)
    assert [event.restored for event in repeated] == [True, True, False]
    assert not (cell_folder(again.runs_dir, cell) / CHECKPOINTS_FOLDER).exists()


def test_the_loss_is_logged_once_by_epoch(world: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    settings = RunSettings(runs_dir=tmp_path, data_root=world)
    result = run_cell(cell_of("last"), settings, told.append)
    live = [m for e in told if isinstance(e, EpochValidated) for m in validation_metrics(e)]
    stored = [m for m in result_metrics(result) if m.key == "validation/epoch_loss"]
    assert [(m.key, m.step, m.value) for m in live] == [(m.key, m.step, m.value) for m in stored]
    assert trained(result).kept_epoch is None
    assert '"kept_epoch"' not in result.to_json()


def test_a_share_and_what_is_kept_are_in_the_id_where_they_are_stated() -> None:
    without, last, best = cell_of("last", None), cell_of("last"), cell_of("best")
    assert len({without.id, last.id, best.id}) == 3
    assert "validation" not in without.record()["data"]
    assert "keep" not in last.record()["train"]
    assert last.record()["data"]["validation"] == {"fraction": 0.05}
    assert Cell.model_validate_json(best.model_dump_json()).id == best.id
    assert DataSpec.model_validate(last.data.model_dump()) == last.data


def test_a_validation_file_is_looked_at_and_held_to_what_it_was(
    world: Path, tmp_path: Path
) -> None:
    rows = pd.read_parquet(world / "alpaca/train.parquet")
    rows["instruction"] += " Please."  # none of them is trained on
    file = tmp_path / "held.parquet"
    raw = yaml.safe_load(grid_text())
    raw["data"]["validation"] = {"path": str(file)}
    raw["train"] = {"epochs": 1, "batch_size": 32}
    grid = tmp_path / "g.yaml"
    grid.write_text(yaml.safe_dump(raw))
    with pytest.raises(UsageError, match=r"data\.validation\.path: no file .*held\.parquet"):
        open_to_run(str(grid), tmp_path / "runs", world, None)
    rows[:20].to_parquet(file)
    cell = open_to_run(str(grid), tmp_path / "runs", world, None).cells[1]
    cell = cell.model_copy(update={"tasks": cell.tasks[:1]})
    settings = RunSettings(runs_dir=tmp_path / "runs", data_root=world)
    assert trained(run_cell(cell, settings, lambda event: None)).validation_examples == 20
    (state,) = read_states([cell], runs_dir=settings.runs_dir, data_root=world)
    assert state.status == "done"
    rows[:19].to_parquet(file)
    (state,) = read_states([cell], runs_dir=settings.runs_dir, data_root=world)
    assert state.status == "stale"
    assert "the validation rows changed since the cell was made" in str(state.fault)
