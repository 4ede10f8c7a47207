"""A base model far from its known scores is told; one near them, or another model, is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.canary import alarms, grid_alarms
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import CellState
from harness.records.results import CellResult
from harness.records.scores import TaskScore
from tests.records.test_results import SCORE


@pytest.fixture(scope="module")
def base() -> Cell:
    return next(cell for cell in expand(load_grid("paper-7b")) if cell.method == "base")


def arc(value: float, **change: object) -> TaskScore:
    score = replace(SCORE, value=value, n=2376, stderr=0.0097)
    return replace(score, **change)  # type: ignore[arg-type]


def result(cell: Cell, *scores: TaskScore) -> CellResult:
    return CellResult(cell=cell.record(), cell_id=cell.id, scores=scores)


def far(cell: Cell, score: TaskScore) -> bool:
    return bool(alarms(cell, result(cell, score)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.250, True),  # chance
        (0.630, True),  # below 67.4 by 4.4 points; 1 point and 3 standard errors are 3.9
        (0.640, False),
        (0.674, False),
        (0.753, False),  # with today's tokenizer
        (0.850, True),
    ],
)
def test_the_tolerance_is_narrow_below_and_wide_above(
    base: Cell, value: float, expected: bool
) -> None:
    assert far(base, arc(value)) is expected


def test_later_fixes_of_acc_norm_are_no_alarm(base: Cell) -> None:
    assert not far(base, arc(0.729, metric="acc_norm"))
    assert far(base, arc(0.80, metric="acc_norm"))


def test_an_alarm_says_score_anchor_and_consequence(base: Cell) -> None:
    (alarm,) = alarms(base, result(base, arc(0.25)))
    said = str(alarm)
    assert said.startswith("llama-7b/base: arc_easy acc is 25.0, 42.4 points below the published")
    assert "67.4" in said
    assert "check the tokenizer, BOS, weights and data before going on" in said


@pytest.mark.parametrize(
    "change",
    [{"limit": 100}, {"shots": 5}, {"protocol": "paper"}, {"n": 100}, {"metric": "acc_macro"}],
)
def test_a_score_measured_otherwise_has_no_anchor(base: Cell, change: dict[str, object]) -> None:
    assert not far(base, arc(0.25, **change))


def test_only_untrained_cells_of_the_anchored_models_count(base: Cell) -> None:
    trained = next(cell for cell in expand(load_grid("paper-7b")) if cell.method == "lora")
    assert not far(trained, arc(0.25))
    shape = base.model.shape.model_copy(update={"vocab_size": 128_256})
    other = base.model_copy(update={"model": base.model.model_copy(update={"shape": shape})})
    assert not far(other, arc(0.25))
    names = {"model_name": "seven", "model": base.model.model_copy(update={"source": "x/llama-7b"})}
    assert far(base.model_copy(update=names), arc(0.25))
    nobody = {"model_name": "x", "model": base.model.model_copy(update={"source": "a/Llama-2-7b"})}
    assert not far(base.model_copy(update=nobody), arc(0.25))


def test_a_grid_has_the_alarms_of_its_cells(base: Cell, tmp_path: Path) -> None:
    folder = cell_folder(tmp_path, base)
    states = [
        CellState(base, folder, result(base, arc(0.25)), "done", ()),
        CellState(base, folder, None, "to do", base.tasks),
    ]
    assert [alarm.cell_id for alarm in grid_alarms(states)] == [base.id]
