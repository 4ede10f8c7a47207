"""What cells warn of reaches the terminal once; a base model far from its scores at once."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands.display import grid_warnings
from harness.commands.progress import Lines, Notices
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellStarted, Scoring, StepDone, Warned
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


def test_a_log_says_what_runs_before_it_ends(cells: list[Cell], tmp_path: Path) -> None:
    console = Console(width=300, record=True, file=io.StringIO())
    cell, other = cells[1], cells[2]
    states = read_states(cells, runs_dir=tmp_path, data_root=None)
    with Lines(console, states, seconds=0.02) as lines:
        lines(CellStarted(other.id, other.label, 0, 0))
        lines(CellStarted(cell.id, cell.label, 40, 0))
        assert console.export_text(clear=False).splitlines() == [
            f"{other.label}: starts (scoring alone)",
            f"{cell.label}: starts (40 steps to train)",
        ]
        until(console, f"{cell.label}: loading\n")  # hours of it may pass without an event
        for step in range(1, 5):
            lines(StepDone(cell.id, step, 0, 1.25, 1e-3, 10.0, 0, restored=step < 3))
        until(console, f"{cell.label}: step 4 of 40, loss 1.250, 0 s left of it\n")
        lines(Scoring(cell.id, "arc_easy", 5, 20))
        until(console, f"{cell.label}: scoring arc_easy, 5 of 20, 0 s left of it\n")
        lines(CellEnded(cell.id, "", 1.0))
        console.export_text()
        until(console, f"{other.label}: loading\n")
        assert cell.label not in console.export_text()
    told = console.export_text()
    time.sleep(0.1)
    assert console.export_text() == ""
    assert other.label in told or told == ""


def until(console: Console, line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in console.export_text(clear=False):
        assert time.monotonic() < deadline, console.export_text()
        time.sleep(0.01)
