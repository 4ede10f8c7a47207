"""What a follower of Slurm's cells makes of their folders, without a Slurm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.cell.run import record_failure
from harness.cell.settings import RunSettings
from harness.errors import TrainingError
from harness.execution.node_job import job_of, write_job
from harness.execution.plan import Place, RunPlan
from harness.execution.slurm import queue
from harness.execution.slurm.follower import Followed, _looked_up
from harness.execution.slurm.submission import turn
from harness.grid.locks import is_running
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.event_file import EventFiles
from harness.records.events import CellEnded, CellStarted
from tests.grid.test_loader import GRID


@pytest.fixture
def cell() -> Cell:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[0]


def follower_of(cell: Cell, runs_dir: Path) -> Followed:
    [state] = read_states([cell], runs_dir=runs_dir, data_root=None)
    return Followed(state)


def test_a_job_that_begins_before_its_number_is_known_is_told_from_its_start(
    cell: Cell, tmp_path: Path
) -> None:
    one = follower_of(cell, tmp_path)
    folder = one.state.folder
    start = CellStarted(cell.id, cell.label, 2, 0)
    end = CellEnded(cell.id, str(folder), 1.0, paused=True)
    with EventFiles({cell.id: folder}) as files:
        files.write(start)
        files.write(end)
    one.place("7_0", tmp_path / "7_0.out")
    assert list(one.reader.new_events()) == [start, end]


def test_a_cell_that_fails_again_in_the_same_way_has_failed(cell: Cell, tmp_path: Path) -> None:
    """Before it began to train, so that its event file tells nothing."""
    plan = RunPlan(RunSettings(runs_dir=tmp_path, data_root=None))
    fault = TrainingError("its disk is full")
    first = follower_of(cell, tmp_path)
    record_failure(cell, first.state.folder, fault)
    again = follower_of(cell, tmp_path)
    again.place("7_0", tmp_path / "7_0.out")
    assert list(_looked_up(again, None, plan)) == []
    record_failure(cell, first.state.folder, fault)
    (ended,) = _looked_up(again, None, plan)
    assert isinstance(ended, CellEnded)
    assert ended.error == "its disk is full"


def test_who_may_not_lock_submits_without_a_turn(tmp_path: Path) -> None:
    with turn(tmp_path):
        assert is_running(tmp_path / "slurm" / ".turn")
    (tmp_path / "other" / "slurm" / ".turn" / ".lock").mkdir(parents=True)
    entered = False
    with turn(tmp_path / "other"):
        entered = True
    assert entered


def test_a_job_that_logs_by_itself_is_known_by_its_file(cell: Cell, tmp_path: Path) -> None:
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    place = Place("slurm", tracking_uri="http://host:5000")
    plan = RunPlan(RunSettings(runs_dir=tmp_path, data_root=None), place=place)
    found = {}
    for logs in (True, False):
        folder = tmp_path / "slurm" / str(logs)
        write_job(folder / "cells.json", job_of([cell], plan, grid, logs=logs))
        (folder / "ids.txt").write_text(f"{cell.id} {cell.label}\n")
        line = ["7", "0", "RUNNING", "n1", "", "", "", "", f"zbench:{folder}:0"]
        one = queue._queued(tmp_path, line)
        assert one is not None
        assert one.cell_id == cell.id
        found[logs] = one.logged
    assert found == {True: True, False: False}
    assert json.loads((tmp_path / "slurm" / "True" / "cells.json").read_text())["tracking"]
