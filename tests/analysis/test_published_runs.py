"""Published runs beside measured ones: differences with their errors, and what is not compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import harness
from harness.analysis.peft_suite import NORMAL_95, suite_table
from harness.analysis.published_runs import (
    PublishedRuns,
    RunLine,
    run_fronts,
    told_different,
)
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.own_benchmarks import find_benchmark
from harness.grid.seed_sd import SeedSd, SeedSds
from harness.report.published_runs import run_drawing, run_records, run_sentences, run_table
from harness.report.sections import SECTIONS
from tests.fixtures.results import GridResults

TASKS = str(Path(harness.__file__).parent / "evaluation" / "peft_suite" / "tasks")
ITEMS = 1319


@pytest.fixture
def grid(results: GridResults) -> GridResults:
    """Two of the published configurations: one as published, one far below."""
    for label, right in (("lora-rank32", 631), ("vera-default", 20)):
        answers = [1.0] * right + [0.0] * (ITEMS - right)
        results.add("peft", 0, {"peft_gsm8k": answers}, label=label, metric="exact_match")
    return results


def runs_of(grid: GridResults, **fields: object) -> PublishedRuns:
    found = findings_of(grid, **fields).published_runs
    assert found is not None
    return found


def findings_of(grid: GridResults, **fields: object):  # noqa: ANN201  # the fixture's
    task = find_benchmark("peft_gsm8k", TASKS)
    assert task is not None
    own = {"published_runs": "peft-suite", "benchmarks": {"peft_gsm8k": task}}
    return grid.findings(**own | fields)


def section_of(name: str) -> str:
    (found,) = [anchor for anchor in SECTIONS if name.startswith(f"{anchor}-")]
    return found


def line(runs: PublishedRuns, label: str) -> RunLine:
    return next(one for one in runs.lines if one.row.label == label)


def test_every_published_run_has_a_line_by_its_rank(grid: GridResults) -> None:
    runs = runs_of(grid)
    assert [one.rank for one in runs.lines] == list(range(1, 64))
    accuracies = [one.row.accuracy for one in runs.lines]
    assert accuracies == sorted(accuracies, reverse=True)
    assert sum(one.is_planned for one in runs.lines) == 2
    assert not line(runs, "adalora-rank32").is_planned


def test_a_difference_has_the_error_of_both_sides_and_of_seeds_where_they_are_stated(
    grid: GridResults,
) -> None:
    same = line(runs_of(grid), "lora-rank32")
    assert same.measured is not None
    assert same.difference == pytest.approx(0, abs=1e-12)
    p = 631 / ITEMS
    assert same.stderr == pytest.approx(math.sqrt(2 * p * (1 - p) / ITEMS), rel=1e-3)
    stated = SeedSds(every=SeedSd(points=1.2))
    wider = line(runs_of(grid, seed_sd=stated), "lora-rank32")
    assert wider.stderr is not None
    assert wider.measured is not None
    assert wider.measured.stderr is not None
    own = wider.measured.stderr**2 + p * (1 - p) / ITEMS
    assert wider.stderr == pytest.approx(math.sqrt(own + 2 * 0.012**2), rel=1e-6)


def test_what_differs_is_told_beyond_noise_alone(grid: GridResults) -> None:
    runs = runs_of(grid)
    assert line(runs, "lora-rank32").is_different is False
    assert line(runs, "vera-default").is_different is True
    assert line(runs, "beft-target-v-proj").is_different is None
    assert told_different(runs) == (1, 2)
    assert "1 of 2 measured runs differ" in " ".join(run_sentences(runs))


def test_another_model_is_not_compared(grid: GridResults) -> None:
    runs = runs_of(grid, other_than_published="the model is tiny")
    assert line(runs, "vera-default").difference is None
    assert told_different(runs) == (0, 0)
    assert "are not compared: the model is tiny." in " ".join(run_sentences(runs))


def test_the_sentences_say_how_many_ranks_the_items_tell_apart(grid: GridResults) -> None:
    assert "Of the 62 pairs of neighbours" in next(run_sentences(runs_of(grid)))
    assert "tell 4 apart: ranks 51, 56, 57, 58 from the next" in next(run_sentences(runs_of(grid)))


def test_the_published_time_is_of_the_steps_as_the_measured_one_is() -> None:
    """PEFT's train_time has the scoring of the test items in it."""
    lora = suite_table().row("lora-rank32")
    assert lora is not None
    assert (round(lora.step_seconds), round(lora.run_seconds)) == (585, 942)
    assert all(0 < row.step_seconds < row.run_seconds for row in suite_table().rows)


def test_the_published_fronts_have_binomial_crosses(grid: GridResults) -> None:
    fronts = run_fronts(runs_of(grid))
    keys = [front.axis.key for front in fronts]
    assert keys == ["trainable_parameters", "peak_memory_bytes", "forgetting"]
    for front in fronts:
        assert len(front.points) == 63
        for point in front.points:
            row = suite_table().row(point.label)
            assert row is not None
            assert point.value == row.accuracy
            assert point.interval is not None
            assert point.interval[1] - point.value == pytest.approx(NORMAL_95 * row.stderr(ITEMS))


def test_table_records_and_figure(grid: GridResults) -> None:
    findings = findings_of(grid)
    (table,) = run_table(findings)
    assert len(table.rows) == 63
    texts = {row.entries[1].text: row.entries for row in table.rows}
    assert texts["lora-rank32"][2].text == "47.8"
    assert texts["lora-rank32"][3].text == "47.8"
    assert texts["lily-rank896-a2-b2-s2.0"][3].text == "not run"
    assert texts["vera-default"][4].bold
    records = {record["method"]: record for record in run_records(findings)}
    assert records["vera-default"]["difference_points"] == pytest.approx(
        100 * (20 / ITEMS - 467 / ITEMS)
    )
    drawing = run_drawing(findings)
    assert drawing is not None
    assert "of the items alone, unpaired; with the spread of seeds fewer would" in drawing.caption
    assert section_of(drawing.name) == "runs"  # and in no other, such as that of published values


def test_a_grid_that_names_none_has_none(grid: GridResults) -> None:
    findings = grid.findings()
    assert findings.published_runs is None
    assert run_table(findings) == run_records(findings) == []
    assert run_drawing(findings) is None


def test_the_benchmarks_are_not_those_that_ship_by_name() -> None:
    assert "peft_gsm8k" not in BENCHMARKS
