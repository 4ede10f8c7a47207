"""What is done, to do, running or failed, read from the folders alone."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.commands.display import grid_warnings
from harness.errors import StorageError, UsageError
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.folders import cell_folder, check_writable
from harness.grid.locks import LOCK_FILE, locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import LocalInputs, read_states
from harness.records.files import sha256_of_file
from harness.records.results import CellError, write_result
from tests.grid.test_loader import GRID
from tests.records.test_results import RESULT, SCORE, TRAIN


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))


def status(cell: Cell, runs: Path) -> str:
    (state,) = read_states([cell], runs_dir=runs, data_root=None)
    return state.status


def scored(cell: Cell) -> tuple:
    return tuple(
        replace(SCORE, benchmark=task.name, task=task.name, key=request_key(task))
        for task in cell.tasks
    )


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every folder that is listed from now on."""
    listed: list[str] = []

    def counting(function: Callable[..., object]) -> Callable[..., object]:
        def call(folder: object = ".") -> object:
            listed.append(str(folder))
            return function(folder)

        return call

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return listed


@pytest.mark.parametrize("done", [False, True])
def test_no_folder_is_listed_twice_however_many_cells_there_are(
    cells: list[Cell], tmp_path: Path, listed: list[str], done: bool
) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "model.safetensors").write_bytes(b"weights")
    base = {"weights_sha256": sha256_of_file(root / "a" / "model.safetensors")}
    for cell in cells:
        folder = cell_folder(tmp_path, cell)
        folder.mkdir(parents=True)
        if done:
            write_result(folder, replace(RESULT, cell_id=cell.id, base=base, scores=scored(cell)))
    listed.clear()
    states = read_states(cells, runs_dir=tmp_path, data_root=root)
    assert [state.result is not None for state in states] == [done] * len(cells)
    assert len(states) > 4
    assert listed == [str(tmp_path / "cells")] + [str(root / "a")] * done


def test_a_cell_without_a_folder_is_to_do(cells: list[Cell], tmp_path: Path) -> None:
    assert status(cells[1], tmp_path) == "to do"


def test_a_cell_is_done_when_trained_and_wholly_scored(cells: list[Cell], tmp_path: Path) -> None:
    cell = cells[1]
    write_result(cell_folder(tmp_path, cell), replace(RESULT, cell_id=cell.id, scores=scored(cell)))
    assert status(cell, tmp_path) == "done"
    write_result(
        cell_folder(tmp_path, cell), replace(RESULT, cell_id=cell.id, scores=scored(cell)[:1])
    )
    (state,) = read_states([cell], runs_dir=tmp_path, data_root=None)
    assert state.status == "to do"
    assert state.trained
    assert [task.name for task in state.missing] == ["mmlu"]


def test_an_untrained_cell_with_scores_is_not_done(cells: list[Cell], tmp_path: Path) -> None:
    cell = cells[1]
    write_result(
        cell_folder(tmp_path, cell),
        replace(RESULT, cell_id=cell.id, train=None, scores=scored(cell)),
    )
    assert status(cell, tmp_path) == "to do"


def test_a_later_failure_takes_nothing_away(cells: list[Cell], tmp_path: Path) -> None:
    cell = cells[1]
    error = CellError("DataError", "no file", "log.txt")
    write_result(
        cell_folder(tmp_path, cell),
        replace(RESULT, cell_id=cell.id, scores=scored(cell), error=error),
    )
    assert status(cell, tmp_path) == "done"
    write_result(
        cell_folder(tmp_path, cell), replace(RESULT, cell_id=cell.id, scores=(), error=error)
    )
    assert status(cell, tmp_path) == "failed"


def test_another_limit_is_another_request(cells: list[Cell]) -> None:
    cell = cells[1]
    result = replace(RESULT, cell_id=cell.id, scores=scored(cell))
    other = cell.model_copy(update={"tasks": (TaskSpec(name="mmlu", limit=6),)})
    assert LocalInputs(None).missing_tasks(cell, result) == ()
    assert LocalInputs(None).missing_tasks(other, result) == other.tasks


def test_other_items_under_the_data_root_are_scored_anew(cells: list[Cell], tmp_path: Path) -> None:
    cell = cells[1].model_copy(update={"tasks": (TaskSpec(name="arc_easy"),)})
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "test.parquet").write_bytes(b"items")
    result = replace(RESULT, cell_id=cell.id, scores=scored(cell))
    assert LocalInputs(tmp_path).missing_tasks(cell, result) == cell.tasks
    (tmp_path / "arc_easy" / "test.parquet").unlink()  # then nothing tells that they are others
    assert LocalInputs(tmp_path).missing_tasks(cell, result) == ()


def test_a_held_folder_is_running_and_refused_to_others(cells: list[Cell], tmp_path: Path) -> None:
    folder = cell_folder(tmp_path, cells[1])
    with locked(folder):
        assert status(cells[1], tmp_path) == "running"
        with (
            pytest.raises(StorageError, match="another process .* is running this cell"),
            locked(folder),
        ):
            pass
    assert status(cells[1], tmp_path) == "to do"


def test_an_error_of_the_lock_is_told_and_means_nothing(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for cell in cells[1:3]:
        cell_folder(tmp_path, cell).mkdir(parents=True)
        (cell_folder(tmp_path, cell) / LOCK_FILE).touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    states = read_states(cells[1:3], runs_dir=tmp_path, data_root=None)
    assert [state.status for state in states] == ["to do", "to do"]
    (warning,) = grid_warnings(states)
    assert "cannot be locked (Input/output error)" in warning
    assert "(1 more cells likewise)" in warning


def test_a_renamed_cell_is_found_by_its_id(cells: list[Cell], tmp_path: Path) -> None:
    folder = tmp_path / "cells" / f"an-older-label--{cells[1].id}"
    folder.mkdir(parents=True)
    assert cell_folder(tmp_path, cells[1]) == folder


def test_changed_weights_or_data_make_a_cell_stale(cells: list[Cell], tmp_path: Path) -> None:
    cell, root = cells[1], tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "model.safetensors").write_bytes(b"weights")
    (root / "train.parquet").write_bytes(b"rows")
    train = replace(TRAIN, data_file_sha256=sha256_of_file(root / "train.parquet"))
    base = {"weights_sha256": sha256_of_file(root / "a" / "model.safetensors")}
    result = replace(RESULT, cell_id=cell.id, train=train, base=base, scores=scored(cell))
    assert LocalInputs(root).changed_input(cell, result) is None
    for name in ("train.parquet", "a/model.safetensors"):
        file = root / name
        kept = file.read_bytes()
        file.write_bytes(b"something else")
        said = LocalInputs(root).changed_input(cell, result)
        assert said is not None
        assert name.split("/")[0] in said
        file.write_bytes(kept)
    assert LocalInputs(None).changed_input(cell, result) is None


def test_a_result_that_cannot_be_read_fails_its_cell_alone(
    cells: list[Cell], tmp_path: Path
) -> None:
    folder = cell_folder(tmp_path, cells[1])
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    (state,) = read_states([cells[1]], runs_dir=tmp_path, data_root=None)
    assert state.status == "failed"
    assert state.fault is not None
    assert "result.json: cannot be read" in state.fault


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="choose another folder with --runs-dir"):
        check_writable(tmp_path / "runs")


def test_a_file_in_the_place_of_the_runs_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("x")
    with pytest.raises(UsageError, match="is no folder; choose another folder with --runs-dir"):
        check_writable(tmp_path / "runs")
