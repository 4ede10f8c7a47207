"""A training that pauses after epochs and is resumed ends with the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.grid.folders import CHECKPOINTS_FOLDER, cell_folder
from harness.records.checkpoints import checkpoint_folders, validation_losses
from harness.records.events import CellEnded, Event
from harness.records.results import read_result
from harness.training.signals import Paused
from tests.cell.test_validation import cell_of, trained


def test_it_stops_with_its_losses_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    cell = cell_of("best").model_copy(update={"tasks": ()})
    settings = RunSettings(runs_dir=tmp_path / "whole", data_root=world)
    whole = trained(run_cell(cell, settings, lambda event: None))
    paused = replace(settings, runs_dir=tmp_path / "paused")
    folder = cell_folder(paused.runs_dir, cell)
    for epochs in (1, 1, 2):  # asked for the same again, it takes no step
        told: list[Event] = []
        with pytest.raises(Paused):
            run_cell(cell, replace(paused, pauses={cell.id: epochs}), told.append)
        (end,) = [event for event in told if isinstance(event, CellEnded)]
        assert (end.paused, end.error) == (True, None)
        assert read_result(folder) is None
        losses = validation_losses(folder / CHECKPOINTS_FOLDER)
        assert losses == whole.validation_losses[:epochs]
    (newest, *_) = checkpoint_folders(folder / CHECKPOINTS_FOLDER)
    (newest / "checkpoint.json").write_text("{")
    assert validation_losses(folder / CHECKPOINTS_FOLDER) == whole.validation_losses[:1]
    assert trained(run_cell(cell, paused, lambda event: None)) == whole
    assert validation_losses(folder / CHECKPOINTS_FOLDER) == ()
