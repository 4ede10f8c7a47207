"""The file of one's own that cells train on: its content is what they are, wherever it lies."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.evaluation.tasks import request_key
from harness.grid.folders import CELL_FILE, cell_folder
from harness.grid.own_data import find_own_data
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.workspace import OpenGrid, open_grid
from harness.records.files import sha256_of_file, write_text
from harness.records.results import read_result, write_result
from tests.evaluation.conftest import write_rows
from tests.grid.test_loader import GRID
from tests.records.test_results import RESULT, SCORE, TRAIN

ROWS = [{"instruction": "a", "input": "", "output": f"b{n}"} for n in range(200)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "g.yaml").write_text(GRID)
    write_rows(tmp_path / "data" / "train.parquet", ROWS)
    return tmp_path


def opened(root: Path, data_root: Path | None, text: str = GRID) -> OpenGrid:
    (root / "g.yaml").write_text(text)
    return open_grid(str(root / "g.yaml"), root / "runs", data_root, None)


def finish(cells: list[Cell], runs_dir: Path, sha256: str | None) -> None:
    """Writes the folders of cells that are done."""
    for cell in cells:
        folder = cell_folder(runs_dir, cell)
        scores = tuple(
            replace(SCORE, benchmark=task.name, task=task.name, key=request_key(task))
            for task in cell.tasks
        )
        train = None if cell.train is None else replace(TRAIN, data_file_sha256=sha256)
        write_text(folder / CELL_FILE, cell.model_dump_json(serialize_as_any=True))
        record = cell.record()
        write_result(
            folder, replace(RESULT, cell=record, cell_id=cell.id, train=train, scores=scores)
        )


def statuses(grid: OpenGrid) -> set[str]:
    return {state.status for state in grid.states}


def test_done_is_done_whatever_the_flags_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = opened(root, root / "data")
    finish(here.cells, here.runs_dir, here.cells[1].data_sha256)
    assert statuses(here) == {"done"}
    assert statuses(opened(root, None)) == {"done"}
    monkeypatch.setenv("ZBENCH_DATA_ROOT", str(root / "data"))
    assert statuses(opened(root, None)) == {"done"}
    monkeypatch.delenv("ZBENCH_DATA_ROOT")
    (root / "data" / "train.parquet").unlink()
    assert statuses(opened(root, root / "data")) == {"done"}


def test_the_same_file_elsewhere_is_the_same_cell(root: Path) -> None:
    here = opened(root, root / "data")
    finish(here.cells, here.runs_dir, here.cells[1].data_sha256)
    (root / "other").mkdir()
    os.rename(root / "data" / "train.parquet", root / "other" / "mine.parquet")
    moved = GRID.replace("train.parquet", str(root / "other" / "mine.parquet"))
    assert statuses(opened(root, None, moved)) == {"done"}


def test_another_file_is_another_cell(root: Path) -> None:
    here = opened(root, root / "data")
    finish(here.cells, here.runs_dir, here.cells[1].data_sha256)
    write_rows(root / "data" / "train.parquet", ROWS[::-1])
    assert [state.status for state in opened(root, root / "data").states][:2] == ["done", "to do"]
    finish(opened(root, root / "data").cells, here.runs_dir, "2" * 64)
    with pytest.raises(UsageError, match=r"2 files of this name .* --data-root"):
        assert opened(root, None).states


def test_what_is_not_known_is_told(root: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.path: train\.parquet: is relative; --data-root"):
        assert opened(root, None).states
    with pytest.raises(UsageError, match=r"data\.path: no file .*train\.parquet; put it there"):
        assert opened(root, root).states
    only_base = GRID.replace("[base, zero-init-linear, {method: lora, rank: 4}]", "[base]")
    assert statuses(opened(root, None, only_base)) == {"to do"}


@pytest.mark.parametrize("was", [{"path": "train.parquet"},
                                 {"source": "tatsu-lab/alpaca", "revision": "main"}])  # fmt: skip
def test_finished_cells_of_earlier_versions_are_found(root: Path, was: dict[str, str]) -> None:
    """Their ids named the path, or Alpaca where no source was given; not the content."""
    grid = opened(root, root / "data")
    sha256 = sha256_of_file(root / "data" / "train.parquet")
    finish(grid.cells, root / "new", sha256)
    for cell in grid.cells:
        old_id = cell.former_ids[len(was) - 1] if cell.train is not None else cell.id
        folder = root / "runs" / "cells" / f"{cell.slug}--{old_id}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(cell_folder(root / "new", cell), folder)
        result = read_result(folder)
        assert result is not None
        write_result(folder, replace(result, cell_id=old_id))
        stored = json.loads((folder / CELL_FILE).read_text())
        del stored["data_sha256"]
        stored["data"]["source"] = was.get("source")
        (folder / CELL_FILE).write_text(json.dumps(stored))
    assert statuses(opened(root, root / "data")) == {"done"}
    assert statuses(opened(root, None)) == {"done"}
    write_rows(root / "data" / "train.parquet", ROWS[::-1])  # their result is of other content
    assert {s.status for s in opened(root, root / "data").states if s.cell.train} == {"to do"}


def test_former_ids_are_those_of_earlier_versions() -> None:
    """The id of the same cell, as version 0.1.0 gave it."""
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    assert expand(grid)[1].former_ids[0] == "ba94ab6a1ee8"
    for stated in ("where: {max_characters: 9}", "validation: {fraction: 0.1}", "template: chat"):
        text = GRID.replace("num_rows: 200", stated)
        (cell,) = expand(resolve_grid(yaml.safe_load(text), place="g.yaml"))[1:2]
        assert cell.data.stated
        assert cell.former_ids == ()


def test_data_of_the_world_and_of_the_hub_have_no_content_in_their_ids(root: Path) -> None:
    for text in (
        GRID.replace("source: null", "source: tatsu-lab/alpaca"),
        "world: demo\n" + GRID.replace("train.parquet", "alpaca/train.parquet"),
    ):
        spec = resolve_grid(yaml.safe_load(text), place="g.yaml")
        assert find_own_data(spec, root, root / "runs").contents == {}
        assert expand(spec, {None: "1" * 64})[1].former_ids == ()
