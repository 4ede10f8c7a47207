"""One rule names a cell, whether its grid or its folder is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.grid.folders import CELL_FILE, cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.selection import UnknownCell, find_cell, find_folder, select_cells
from harness.records.files import write_text
from harness.records.results import RESULT_FILE
from tests.grid.test_loader import GRID


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"), {None: "1" * 64})


@pytest.fixture
def runs_dir(cells: list[Cell], tmp_path: Path) -> Path:
    """A runs folder in which every cell was begun, beside the grid's file."""
    (tmp_path / "g.yaml").write_text(GRID)
    for cell in cells:
        begin(cell, tmp_path / "runs")
    return tmp_path / "runs"


def begin(cell: Cell, runs_dir: Path) -> Path:
    folder = cell_folder(runs_dir, cell)
    record = cell.model_dump(mode="json", serialize_as_any=True)
    write_text(folder / CELL_FILE, json.dumps(record))
    return folder


@pytest.mark.parametrize("content", ["", "[]", "{}", None])
def test_a_folder_whose_description_is_damaged_is_found_by_its_name(
    cells: list[Cell], runs_dir: Path, content: str | None
) -> None:
    folder = cell_folder(runs_dir, cells[1])
    if content is None:
        (folder / CELL_FILE).rename(folder / RESULT_FILE)
    else:
        (folder / CELL_FILE).write_text(content)
    assert find_folder(cells[1].label, runs_dir) == folder


def test_cells_are_chosen_by_the_words_of_their_labels(cells: list[Cell]) -> None:
    chosen = select_cells(cells, "linear seed1")
    assert [cell.label for cell in chosen] == [
        "a/zero-init-linear/10%/seed1",
        "a/zero-init-linear/100%/seed1",
    ]
    with pytest.raises(UsageError, match="matches no cell"):
        select_cells(cells, "linear seed7")


def test_every_name_means_the_same_cell_in_a_grid_and_in_a_runs_folder(
    cells: list[Cell], runs_dir: Path
) -> None:
    cell, folder, grid = cells[2], cell_folder(runs_dir, cells[2]), runs_dir.parent / "g.yaml"
    names = [cell.label, cell.id, cell.id[:6], cell.slug, str(folder), f"{folder}/"]
    for name in (*names, *(f"{grid}:{name}" for name in names[:4])):
        assert find_cell(cells, name, grid=str(grid)) == cell
        assert find_folder(name, runs_dir) == folder


def test_a_cell_that_has_not_begun_has_its_place(cells: list[Cell], runs_dir: Path) -> None:
    grid, elsewhere = runs_dir.parent / "g.yaml", runs_dir.parent / "elsewhere"
    assert find_folder(f"{grid}:{cells[0].label}", elsewhere) == cell_folder(elsewhere, cells[0])
    with pytest.raises(UsageError, match="train.parquet: is relative; --data-root .* names"):
        find_folder(f"{grid}:{cells[1].label}", elsewhere)  # its data are not known there


def test_a_folder_is_a_cell_wherever_it_lies(cells: list[Cell], runs_dir: Path) -> None:
    moved = runs_dir.parent / "moved"
    cell_folder(runs_dir, cells[1]).rename(moved)
    assert find_folder(str(moved), runs_dir) == moved
    assert find_folder(str(moved / CELL_FILE), runs_dir) == moved


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/zero-init-linear/10%/seed9", "no such cell.*did you mean 'a/zero-init-linear/10%/seed"),
        ("zzz", "zzz: no such cell"),
        ("another.yaml:a/base", "no such (cell|grid)"),
    ],
)
def test_a_name_of_no_cell_offers_the_nearest(
    cells: list[Cell], runs_dir: Path, name: str, said: str
) -> None:
    with pytest.raises(UnknownCell, match=said):
        find_cell(cells, name, grid="g.yaml")
    with pytest.raises(UsageError, match=said):
        find_folder(name, runs_dir)


def test_a_name_of_several_cells_is_told_with_their_ids(
    cells: list[Cell], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = cells[1].model_copy(update={"world": "demo-1"})
    assert twin.label == cells[1].label
    begin(twin, runs_dir)
    with pytest.raises(UsageError, match=f"2 cells have this name .*{twin.id}.*give an id"):
        find_folder(cells[1].label, runs_dir)
    assert find_folder(twin.id, runs_dir) == cell_folder(runs_dir, twin)
    monkeypatch.setattr("harness.grid.selection.SHORTEST_ID", 0)
    with pytest.raises(UsageError, match="cells have this name"):
        find_cell(cells, "")


def test_too_short_a_beginning_of_an_id_names_nothing(cells: list[Cell], runs_dir: Path) -> None:
    with pytest.raises(UnknownCell):
        find_cell(cells, cells[1].id[:3])
    with pytest.raises(UnknownCell):
        find_folder(cells[1].id[:3], runs_dir)
