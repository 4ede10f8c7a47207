"""What a report takes from results: the scores that the grid asks for, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.analysis.frames import cells_frame, losses_frame, scores_frame, scores_of
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.folders import cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import CellState
from harness.records.results import CellError
from tests.grid.test_loader import GRID
from tests.grid.test_status import scored
from tests.records.test_results import RESULT, SCORE


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))


def test_the_very_request_goes_before_one_of_another_version() -> None:
    task = TaskSpec(name="arc_easy")
    old = replace(SCORE, key="old", value=0.1)
    new = replace(SCORE, key=request_key(task), value=0.9)
    assert scores_of(task, replace(RESULT, scores=(new, old))) == (new,)
    assert scores_of(task, replace(RESULT, scores=(old,))) == (old,)


def test_scores_of_another_limit_or_benchmark_are_not_shown() -> None:
    limited = replace(SCORE, limit=5)
    assert scores_of(TaskSpec(name="arc_easy"), replace(RESULT, scores=(limited,))) == ()
    assert scores_of(TaskSpec(name="mmlu"), replace(RESULT, scores=(SCORE,))) == ()


def test_scores_of_another_form_or_definition_are_not_shown() -> None:
    plain, chat = TaskSpec(name="arc_easy"), TaskSpec(name="arc_easy", apply_chat_template=True)
    asked = replace(SCORE, form=chat.form)
    assert scores_of(chat, replace(RESULT, scores=(SCORE,))) == ()
    assert scores_of(plain, replace(RESULT, scores=(asked,))) == ()
    assert scores_of(chat, replace(RESULT, scores=(asked,))) == (asked,)
    own = replace(SCORE, definition="0" * 64)
    assert scores_of(plain, replace(RESULT, scores=(own,))) == ()


def test_a_scores_row_says_what_it_is_of(cells: list[Cell]) -> None:
    cell = cells[1]
    frame = scores_frame([cell], {cell.id: replace(RESULT, scores=scored(cell))})
    assert frame["benchmark"].tolist() == ["arc_easy", "mmlu"]
    row = frame.iloc[0]
    assert (row["model"], row["method"], row["fraction"], row["seed"]) == (
        "a",
        "zero-init-linear",
        0.1,
        0,
    )
    assert row["value"] == 0.5


def test_every_planned_cell_has_a_row_with_what_is_missing_missing(
    cells: list[Cell], tmp_path: Path
) -> None:
    assert RESULT.train is not None
    noted = replace(RESULT.train, note="the loss exploded")
    done = replace(RESULT, train=noted, scores=scored(cells[1]))
    failed = replace(RESULT, train=None, scores=(), error=CellError("E", "why", "log.txt"))
    results = {cells[1].id: done, cells[2].id: failed}
    states = [
        CellState(cell, cell_folder(tmp_path, cell), results.get(cell.id), "to do", cell.tasks)
        for cell in cells
    ]
    frame = cells_frame(states, results).set_index("label")
    assert len(frame) == len(cells)
    assert frame.loc[cells[1].label, "status"] == "done"
    assert frame.loc[cells[2].label, "status"] == "failed"
    assert frame.loc[cells[2].label, "error"] == "why"
    assert frame.loc[cells[1].label, "training_note"] == "the loss exploded"
    assert frame["training_note"].notna().sum() == 1
    assert frame.loc["a/base", "status"] == "missing"
    assert math.isnan(frame.loc["a/base", "final_gate_max_abs"])
    assert frame.loc[cells[1].label, "final_gate_mean_abs"] == 0.1
    assert frame.loc["a/base", "trainable_parameters"] == 0


def test_losses_are_one_row_per_epoch(cells: list[Cell]) -> None:
    frame = losses_frame(cells, {cells[1].id: RESULT})
    assert frame[["epoch", "loss"]].to_numpy().tolist() == [[0, 2.0], [1, 1.5]]
    assert losses_frame(cells, {}).empty
