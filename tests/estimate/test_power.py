"""What a grid's claims could show before it runs: the columns, seeds and items of its cells."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from harness.estimate.power import claim_powers, key_of, planned_claims
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.schema import expand
from tests.fixtures.claims import answers
from tests.fixtures.results import GridResults

ITEMS = {"ARC-e": 2376, "ARC-c": 1172, "MMLU": 14042, "HellaSwag": 10042, "TruthfulQA": 817}
WEIGHTS = {"ARC-e": 0.125, "ARC-c": 0.125, "MMLU": 0.25, "HellaSwag": 0.25, "TruthfulQA": 0.25}


def powers_of(name: str):
    grid = load_grid(name)
    planned = planned_claims(grid, expand(grid), None)
    return claim_powers(grid, planned, {})


def test_the_papers_average_has_the_papers_items_and_weights() -> None:
    for power in powers_of("paper-7b"):
        assert power.planned.column == "Average"
        assert power.planned.items == tuple((WEIGHTS[name], ITEMS[name]) for name in ITEMS)
        assert power.planned.seeds == (0,)
        assert power.planned.margin == pytest.approx(0.02)


def test_one_seed_of_the_paper_by_hand() -> None:
    # Four tests share 5%: z at 1.25% / 2, and 80%; twice the stated variance, unpaired answers.
    items = sum(w**2 * 0.5 / ITEMS[name] for name, w in WEIGHTS.items())
    by_hand = (2.497705 + 0.841621) * math.sqrt(2 * 0.012**2 + items)
    assert len(powers_of("paper-7b")) == 4
    for power in powers_of("paper-7b"):
        assert power.reach.smallest == pytest.approx(by_hand, rel=1e-3)
        assert not power.reach.reaches_margin


def test_only_the_papers_own_protocol_has_published_differences() -> None:
    found = {
        (one.planned.group.protocol, one.planned.left.method): one.planned.published
        for one in powers_of("paper-7b")
    }
    assert found["lm-eval", "zero-init-linear"] is None
    assert found["paper", "zero-init-linear"].value == pytest.approx(0.5283 - 0.4906)
    assert found["paper", "zero-init-nonlinear"].value == pytest.approx(0.5328 - 0.5283)


def test_paper_7b_seeds_has_the_fewest_seeds_that_decide_the_first_claim() -> None:
    first, second = (p for p in powers_of("paper-7b-seeds") if p.planned.group.protocol == "paper")
    assert first.reach.published.seeds == len(first.planned.seeds) == 5
    assert first.reach.smallest <= first.planned.published.value
    assert second.reach.published.seeds is None  # what the grid's note says of it
    (one,) = (p for p in powers_of("paper-7b")
              if p.planned.published and p.planned.left.method == "zero-init-linear")  # fmt: skip
    assert one.reach.smallest > one.planned.published.value


def test_every_shipped_claim_has_a_margin_and_what_its_grid_could_show() -> None:
    for name in shipped_grids():
        if name == "rehearsal":
            continue
        grid = load_grid(name)
        for claim in grid.claims:
            assert claim.margin, name
        for power in powers_of(name):
            assert power.reach is not None, (name, power.lacks)


def test_items_of_a_column_are_counted_in_the_worlds_own_rows() -> None:
    for power in powers_of("demo-pictures"):
        assert power.planned.column == "IMG"
        assert power.planned.items == ((1.0, 390),)


def test_a_grid_without_claims_plans_none() -> None:
    grid = load_grid("paper-7b").model_copy(update={"claims": ()})
    assert planned_claims(grid, expand(grid), None) == []


def test_without_a_stated_spread_nothing_is_known() -> None:
    grid = load_grid("paper-7b").model_copy(update={"seed_sd": None})
    planned = planned_claims(grid, expand(grid), None)
    for power in claim_powers(grid, planned, {}):
        assert power.reach is None
        assert "seed_sd" in power.lacks


def test_finished_cells_take_the_place_of_what_is_stated() -> None:
    grid = load_grid("paper-7b")
    planned = planned_claims(grid, expand(grid), None)
    from harness.analysis.power import Spread

    known = {key_of(planned[0]): (Spread(0.0, 1e-6, 0.0, 100), "finished cells")}
    first, second, *_ = claim_powers(grid, planned, known)
    assert first.reach.source == "finished cells"
    assert first.reach.smallest < second.reach.smallest


def test_what_is_planned_is_what_the_report_judges() -> None:
    grid = load_grid("paper")
    results = GridResults()
    names = {task.name: task.benchmark for block in grid.blocks for task in block.tasks}
    for cell in expand(grid):
        if cell.fraction not in (1.0, None) or cell.method not in (
            *("random-init", "zero-init-linear", "zero-init-nonlinear"),
        ):
            continue
        results.add(cell.method, cell.seed, model=cell.model_name)
        head = {name: results.cells[-1][name] for name in (
            *("cell_id", "label", "model", "method", "method_name", "method_title"),
            *("fraction", "seed"),
        )}  # fmt: skip
        results.cells[-1]["method_title"] = head["method_title"] = cell.method_title
        for name, known in names.items():
            (values,) = answers(0.5, 0, names=(name,), size=20).values()
            results.score(head, name, values, protocol=known.protocol.name)
    planned = planned_claims(grid, expand(grid), None)
    judged = [
        (e.model, e.group.protocol, e.column, e.left, e.right)
        for e in (one.comparison for one in results.findings(claims=grid.claims).claims)
    ]
    assert sorted(map(key_of, planned)) == sorted(judged)
    assert len(judged) == 8


def test_items_of_a_task_that_nobody_counted_are_asked_for(tmp_path: Path) -> None:
    grid = load_grid("paper-7b")
    planned = planned_claims(grid, expand(grid), None)[0]
    unknown = dataclasses.replace(planned, items=((0.5, None), *planned.items[1:]))
    (power,) = claim_powers(grid, [unknown], {})
    assert power.reach is None
    assert "number of items is not known here: ARC-e" in power.lacks


def test_of_some_of_scienceqa_s_items_the_published_number_is_known() -> None:
    found = {
        (one.planned.group.protocol, one.planned.column): one
        for one in powers_of("scienceqa-7b")
        if one.planned.right.method == "text-only"
    }
    assert found["scienceqa", "IMG"].planned.items == ((1.0, 2017),)
    assert found["lm-eval", "IMG"].planned.items == ((1.0, 2017),)
    assert found["scienceqa", "IMG"].planned.published.value == pytest.approx(0.8032 - 0.7035)
    assert found["lm-eval", "IMG"].planned.published is None
