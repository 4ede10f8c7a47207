"""What is damaged in a runs folder is found, and what nobody needs may be removed: no result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from harness.commands.clean import clean_command
from harness.commands.verify import verify_command
from harness.errors import UsageError
from harness.grid.folders import ADAPTER_FOLDER, CELL_FILE, STEPS_FILE, cell_folder, items_path
from harness.grid.locks import CellBusy, locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.upkeep import find_waste, verify_cell, verify_rest
from harness.records.files import write_frame
from harness.records.picture_files import features_file, write_features
from harness.records.results import CellError, write_result
from tests.grid.test_cell_files import FRAME
from tests.grid.test_loader import GRID
from tests.records.test_results import RESULT, SCORE
from tests.training.test_checkpoint import IDENTITY, flip, save_checkpoint, state_at

Change = Callable[[Path], object]


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))


def finish(cell: Cell, runs: Path) -> Path:
    """Returns the folder of a cell that is trained and scored, with all of its files."""
    folder = cell_folder(runs, cell)
    names = [str(items_path(Path(), "arc_easy", SCORE.key)), STEPS_FILE]
    hashes = {name: write_frame(folder / name, FRAME) for name in names}
    write_result(folder, replace(RESULT, cell_id=cell.id, files_sha256=hashes))
    (folder / ADAPTER_FOLDER).mkdir()
    tensors = {"a": torch.zeros(20)}
    save_file(tensors, folder / ADAPTER_FOLDER / "adapter_model.safetensors")
    (folder / ADAPTER_FOLDER / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    record = cell.model_dump(mode="json", serialize_as_any=True)
    (folder / CELL_FILE).write_text(json.dumps(record))
    return folder


def begin(cell: Cell, runs: Path) -> Path:
    """Returns the folder of a cell whose training was stopped."""
    folder = cell_folder(runs, cell)
    for step in (5, 10):
        save_checkpoint(folder / "checkpoints", state_at(step), IDENTITY)
    return folder


def test_a_whole_folder_has_no_findings(
    cells: list[Cell],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(cells[1], tmp_path)
    begin(cells[2], tmp_path)
    assert verify_command(tmp_path, None, as_json=False) == 0
    assert capsys.readouterr().out == "2 cells looked at: all is as it was written\n"
    assert verify_command(tmp_path, cells[:2], as_json=False) == 0
    assert capsys.readouterr().out == "1 cell looked at: all is as it was written\n"


def cut(name: str) -> Change:
    def half(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return half


CONFIG = f"{ADAPTER_FOLDER}/adapter_config.json"
ITEMS = str(items_path(Path(), "arc_easy", SCORE.key))
WEIGHTS = f"{ADAPTER_FOLDER}/adapter_model.safetensors"


@pytest.mark.parametrize(
    ("change", "place", "becomes"),
    [
        (cut("result.json"), "result.json", "runs the cell again"),
        (lambda f: (f / "result.json").write_text("[]"), "result.json", "runs the cell again"),
        (lambda f: f.rename(f"{f}0"), "result.json", "is of another cell"),
        (cut(ITEMS), ITEMS, "scores the benchmark again"),
        (lambda f: (f / ITEMS).unlink(), ITEMS, "is missing; run-grid scores"),
        (cut(STEPS_FILE), STEPS_FILE, "left out"),
        (lambda f: (f / "gates.parquet").write_bytes(b"old"), "gates.parquet", "left out"),
        (lambda f: (f / CONFIG).unlink(), ADAPTER_FOLDER, "adapter_config.json"),
        (lambda f: (f / CONFIG).write_text("["), ADAPTER_FOLDER, "is no JSON"),
        (cut(WEIGHTS), ADAPTER_FOLDER, "adapter_model.safetensors: "),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 300), ADAPTER_FOLDER, "safetensors"),
        (lambda f: (f / WEIGHTS).unlink(), ADAPTER_FOLDER, "holds no trained weights"),
        (lambda f: (f / CELL_FILE).write_text("[" * 10**5), CELL_FILE, "writes it again"),
    ],
)
def test_every_damaged_file_is_named_with_what_becomes_of_it(
    cells: list[Cell],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    place: str,
    becomes: str,
) -> None:
    change(finish(cells[1], tmp_path))
    begin(cells[2], tmp_path)
    assert verify_command(tmp_path, None, as_json=True) == 1
    record = json.loads(capsys.readouterr().out)
    (finding,) = record["findings"]
    assert (record["cells"], record["damaged"], finding["kind"]) == (2, 1, "damaged")
    assert finding["path"].endswith(place)
    assert becomes in finding["text"]


def test_a_damaged_checkpoint_and_what_is_none_are_named(
    cells: list[Cell],
    tmp_path: Path,
) -> None:
    folder = begin(cells[1], tmp_path) / "checkpoints"
    flip("state.safetensors")(folder / "step-00000010")
    (folder / "step-abc").mkdir()
    said = [str(finding) for finding in verify_cell(folder.parent)]
    assert "step-00000010: damaged or incomplete (its SHA-256 is another); the one" in said[0]
    assert said[1].startswith(f"left over: {folder / 'step-abc'}")


def test_what_a_killed_write_left_is_told_and_is_no_damage(
    cells: list[Cell],
    tmp_path: Path,
) -> None:
    folder = begin(cells[1], tmp_path)
    for path in (
        folder / ".result.json.a1b2c3d4",
        folder / "checkpoints" / ".step-00000011.abcd_fgh",
        folder / "items" / ".arc_easy--k.parquet.00000000",
        tmp_path / ".mine",
    ):
        path.mkdir(parents=True)
    found = list(verify_cell(folder))
    assert {finding.kind for finding in found} == {"left over"}
    assert len(found) == 3
    beside = tmp_path / ".token_budgets.json.a1b2c3d4"
    beside.mkdir()
    assert list(verify_rest(tmp_path)) == []  # it may be written now
    os.utime(beside, (1, 1))
    assert [finding.path for finding in verify_rest(tmp_path)] == [beside]
    waste, _ = find_waste(tmp_path, {cells[1].id})
    assert sorted(one.path for one in waste) == sorted([beside, *(one.path for one in found)])


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (finding,) = verify_rest(tmp_path)
    assert finding.path.name == "mlflow.db"
    assert "`zbench sync`" in finding.text


def test_a_cell_that_runs_is_neither_read_nor_cleaned(
    cells: list[Cell],
    tmp_path: Path,
) -> None:
    folder = begin(cells[1], tmp_path)
    (waste,) = find_waste(tmp_path, ())[0]
    with locked(folder):
        (finding,) = verify_cell(folder)
        assert (finding.kind, finding.text) == ("not checked", "its cell is running now")
        assert find_waste(tmp_path, ()) == ([], [f"{folder}: is running; left alone"])
        with pytest.raises(CellBusy):
            waste.remove()
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_checkpoints_of_finished_cells_and_cells_of_no_grid_go_and_no_result_does(
    cells: list[Cell],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished, going, foreign, foreign_done, failed = cells[1:6]
    for cell in (finished, foreign_done):
        finish(cell, tmp_path)
    for cell in (finished, going, foreign, foreign_done, failed):
        begin(cell, tmp_path)
    error = CellError("DataError", "no file", "log.txt")
    nothing = replace(RESULT, cell_id=failed.id, train=None, scores=(), error=error)
    write_result(cell_folder(tmp_path, failed), nothing)
    before = sorted(tmp_path.rglob("*"))
    grid = [finished, going]
    assert clean_command(tmp_path, grid, remove=False, as_json=False) == 0
    assert "with --yes it is" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert clean_command(tmp_path, grid, remove=True, as_json=True) == 0
    record = json.loads(capsys.readouterr().out)
    gone = {Path(one["path"]) for one in record["waste"]}
    assert gone == {
        cell_folder(tmp_path, finished) / "checkpoints",
        cell_folder(tmp_path, foreign_done) / "checkpoints",
        *(tmp_path / "cells" / f"{cell.slug}--{cell.id}" for cell in (foreign, failed)),
    }
    assert record["bytes"] == sum(one["bytes"] for one in record["waste"]) > 1000
    assert record["left_alone"] == [
        f"{cell_folder(tmp_path, foreign_done)}: in no grid that is named, and holds a result: "
        "left alone"
    ]
    left = set(before) - set(tmp_path.rglob("*")) - {cell_folder(tmp_path, foreign) / ".lock"}
    assert all(any(path.is_relative_to(place) for place in gone) for path in left)
    assert find_waste(tmp_path, {cell.id for cell in grid})[0] == []
    assert [finding.kind for finding in verify_rest(tmp_path)] == []


def test_a_damaged_result_is_left_alone(cells: list[Cell], tmp_path: Path) -> None:
    folder = finish(cells[1], tmp_path)
    (folder / "result.json").write_text("{")
    begin(cells[1], tmp_path)
    waste, alone = find_waste(tmp_path, ())
    assert waste == []
    assert "result.json: cannot be read" in alone[0]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    for command in (
        lambda: verify_command(tmp_path / "none", None, as_json=False),
        lambda: clean_command(tmp_path / "none", [], remove=True, as_json=False),
    ):
        with pytest.raises(UsageError, match="none: no such folder"):
            command()


def test_damaged_features_of_pictures_are_told_and_what_a_killed_encoder_left(
    tmp_path: Path,
) -> None:
    whole = features_file(tmp_path, {"weights_sha256": "a"}, ["b", "c"])
    write_features(whole, np.ones((2, 3), np.float32))
    cut = features_file(tmp_path, {"weights_sha256": "a"}, ["b"])
    cut.write_bytes(whole.read_bytes()[:-3])
    assert whole.parent == cut.parent
    (finding,) = verify_rest(tmp_path)
    assert (finding.kind, finding.path) == ("damaged", cut)
    assert finding.text.endswith("; the pictures are encoded again when needed")
    lock = whole.with_name(f".{whole.name}.lock")
    lock.touch()
    assert not find_waste(tmp_path, [])[0]
    os.utime(lock, (0, 0))
    assert [one.path for one in find_waste(tmp_path, [])[0]] == [lock]
