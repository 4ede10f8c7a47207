"""What cells warn of reaches the terminal once; a base model far from its scores at once."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands.display import grid_warnings
from harness.commands.progress import Notices
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellStarted, Warned
from harness.records.results import CellResult, write_result
from tests.records.test_results import SCORE


@pytest.fixture
def cells() -> list[Cell]:
    return expand(load_grid("paper-7b"))


def listening(cells: list[Cell], runs_dir: Path) -> tuple[Notices, Console]:
    console = Console(width=300, record=True, file=io.StringIO())
    return Notices(console, read_states(cells, runs_dir=runs_dir, data_root=None)), console


def write_base(cell: Cell, runs_dir: Path) -> None:
    score = replace(SCORE, value=0.25, n=2376, stderr=0.009)
    result = CellResult(cell=cell.record(), cell_id=cell.id, scores=(score,))
    write_result(cell_folder(runs_dir, cell), result)


def test_what_many_cells_warn_of_is_printed_once(cells: list[Cell], tmp_path: Path) -> None:
    notices, console = listening(cells, tmp_path)
    for cell in cells[:3]:
        notices(CellStarted(cell.id, cell.label, 1, 0))
        notices(Warned(cell.id, "no BOS"))
    text = console.export_text()
    assert text == f"warning: {cells[0].label}: no BOS\n"


def test_a_base_cell_is_looked_at_as_soon_as_it_ends(cells: list[Cell], tmp_path: Path) -> None:
    base = next(cell for cell in cells if cell.method == "base")
    notices, console = listening(cells, tmp_path)
    write_base(base, tmp_path)
    for cell in cells:
        if cell != base:
            notices(CellEnded(cell.id, "", 1.0))
    assert console.export_text() == ""
    notices(CellEnded(base.id, "", 1.0))
    assert "warning: llama-7b/base: arc_easy acc is 25.0" in console.export_text()


def test_a_grids_warnings_are_there_later_too(cells: list[Cell], tmp_path: Path) -> None:
    base = next(cell for cell in cells if cell.method == "base")
    assert grid_warnings(read_states(cells, runs_dir=tmp_path, data_root=None)) == []
    write_base(base, tmp_path)
    states: list[CellState] = read_states(cells, runs_dir=tmp_path, data_root=None)
    (warning,) = grid_warnings(states)
    assert "points below the published" in warning
