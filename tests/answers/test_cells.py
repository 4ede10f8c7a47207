"""Which cells of a grid can answer, in which template, and why the others cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from harness.answers.cells import (
    Answering,
    cells_to_ask,
    is_answered,
    kept_answers,
    key_of,
    origin_of,
)
from harness.answers.instructions import read_set
from harness.answers.prompts import PromptForm
from harness.answers.store import (
    COLUMNS,
    GREEDY,
    Entry,
    InstructionSet,
    set_key,
    write_responses,
)
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState, Status
from harness.grid.workspace import OpenGrid
from harness.records.results import CellResult, TrainResult
from tests.grid.test_loader import GRID

TRAIN = TrainResult(
    steps=1, examples=1, tokens=1, epoch_losses=(1.0,), trainable_parameters=1,
    total_parameters=2, seconds=1.0, tokens_per_second=1.0, peak_memory_bytes=1,
    peak_learning_rate=1.0, precision="fp32", device="cpu", data_sha256="d", weights_sha256="w",
)  # fmt: skip


def grid_of(tmp_path: Path, status: Status = "done", template: str = "", **data: Any) -> OpenGrid:
    """Returns a grid all of whose cells have a status, and a result where they are done."""
    record = yaml.safe_load(GRID)
    record["data"] = record.get("data", {}) | data
    spec = resolve_grid(record, place="g.yaml")
    if template:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"template": template})})
    grid = OpenGrid("g.yaml", spec, expand(spec), tmp_path, None)
    states = []
    for cell in grid.cells:
        train = TRAIN if cell.train is not None else None
        result = CellResult(cell.record(), cell.id, train=train, base={"precision": "fp32"})
        known = result if status in ("done", "stale") else None
        states.append(CellState(cell, tmp_path / cell.slug, known, status, (), "changed"))
    grid.__dict__["states"] = states
    return grid


def test_finished_cells_and_the_base_are_asked_in_the_template_of_the_data(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, source="tatsu-lab/alpaca")
    found = cells_to_ask(grid)
    assert [one.cell for one in found.able] == grid.cells
    assert {one.form.name for one in found.able} == {"alpaca"}
    assert any(one.cell.train is None for one in found.able)
    assert found.lines == []


def test_a_template_without_a_place_leaves_its_cells_out(tmp_path: Path) -> None:
    found = cells_to_ask(grid_of(tmp_path, template="scienceqa"))
    assert found.able == ()
    (line,) = found.lines
    assert "its template (scienceqa) takes questions with options, no instructions" in line


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("to do", "left out, not run yet: "),
        ("running", "left out, still running: "),
        ("failed", "left out, failed (changed): "),
        ("stale", "left out, changed: "),
    ],
)
def test_what_is_not_finished_is_named_with_the_reason(
    tmp_path: Path, status: Status, said: str
) -> None:
    found = cells_to_ask(grid_of(tmp_path, status))
    assert found.able == ()
    assert any(line.startswith(said) for line in found.lines)


def test_the_origin_follows_all_that_answers_follow_from(tmp_path: Path) -> None:
    chosen = read_set(None, None)
    one = next(
        one
        for one in cells_to_ask(grid_of(tmp_path, source="tatsu-lab/alpaca")).able
        if one.cell.train is not None
    )
    first = origin_of(one, chosen, GREEDY)
    assert first["weights_sha256"] == "w"
    retrained = replace(one.result, train=replace(TRAIN, weights_sha256="v"))
    assert origin_of(replace(one, result=retrained), chosen, GREEDY) != first
    other_form = replace(one, form=replace(one.form, template=None))
    assert origin_of(other_form, chosen, GREEDY) != first
    assert origin_of(one, chosen, replace(GREEDY, max_new_tokens=3)) != first
    assert origin_of(one, chosen, replace(GREEDY, seed=3)) == first, "nothing is drawn"
    assert not is_answered(one, chosen, GREEDY)


def test_answers_are_kept_as_long_as_they_are_the_cells_own(tmp_path: Path) -> None:
    chosen = InstructionSet.of("q", [Entry("a", "Say a.")])
    grid = grid_of(tmp_path, source="tatsu-lab/alpaca")
    base = next(one for one in cells_to_ask(grid).able if one.cell.train is None)
    trained = next(one for one in cells_to_ask(grid).able if one.cell.train is not None)
    frame = pd.DataFrame([("a", "", "Say a.", "", "a", 1, "eos", "")], columns=list(COLUMNS))

    def kept(one: Answering, **changes: Any) -> bool:
        state = replace(one.state, **changes)
        return kept_answers(state, one.form, chosen, GREEDY) is not None

    for one in (base, trained):
        assert not kept(one)
        origin = origin_of(one, chosen, GREEDY)
        write_responses(one.state.folder, set_key(chosen), frame, origin)
        assert kept(one)
        assert kept(one, result=None), "nothing says otherwise"
        assert not kept(one, status="stale")
        other_base = replace(one.result, base={"weights_sha256": "other"})
        assert not kept(one, result=other_base)
        # Another grid with the same cell, whose data have another template.
        assert not kept(replace(one, form=PromptForm(None)))
        other_set = InstructionSet(chosen.name, chosen.sha256[:8] + "f" * 56, chosen.entries)
        assert kept_answers(one.state, one.form, other_set, GREEDY) is None
    # Those of the base model stand beside, so that the two grids do not take turns.
    other_form = replace(base, form=PromptForm(None))
    name = key_of(base.cell, other_form.form, chosen, GREEDY)
    write_responses(base.state.folder, name, frame, origin_of(other_form, chosen, GREEDY))
    assert kept(base)
    assert kept(other_form)
    assert key_of(trained.cell, PromptForm(None), chosen, GREEDY) == set_key(chosen)
    retrained = replace(trained.result, train=replace(TRAIN, weights_sha256="v"))
    assert not kept(trained, result=retrained)
