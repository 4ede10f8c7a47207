"""The table of forgetting, its place, and what is said where it cannot be made."""

from __future__ import annotations

import math

import pytest

from harness.analysis.findings import Findings
from harness.report import build_report
from harness.report.contents import table_files
from harness.report.forgetting import forgetting_records, forgetting_tables, missing_lines
from tests.analysis.test_forgetting import BENCHMARK, add, drawn
from tests.fixtures.results import GridResults, answers_of


def fill(grid: GridResults, *, has_base: bool = True) -> GridResults:
    """A grid with two seeds of a method that forgets 0.02 and 0.04 nats per byte."""
    nats, sizes = drawn(0)
    if has_base:
        add(grid, "base", None, nats, sizes)
    for seed, loss in enumerate((0.02, 0.04)):
        add(grid, "lora", seed, [n - loss * s for n, s in zip(nats, sizes, strict=True)], sizes)
    return grid


@pytest.fixture
def findings(results: GridResults) -> Findings:
    return fill(results).findings(BENCHMARK, tables=())


def test_the_table_has_before_after_and_the_rise(findings) -> None:
    (table,) = forgetting_tables(findings)
    base, lora = table.rows
    before, after = (float(row.entries[3].text) for row in (base, lora))
    assert base.entries[1].text == "Base model"
    assert lora.entries[2].text == "2"
    assert lora.entries[4].text == f"+{0.03 / math.log(2):.4f}"
    assert after - before == pytest.approx(0.03 / math.log(2), abs=2e-4)
    assert "above 0 the text has become less likely" in " ".join(table.caption)


def test_files_and_csv_are_written(findings) -> None:
    assert {"forgetting.md", "forgetting.tex", "forgetting.csv"} <= {
        name for name, _ in table_files(findings)
    }
    (record,) = forgetting_records(findings)
    rise = record["after_bits_per_byte"] - record["before_bits_per_byte"]
    assert record["forgetting_bits_per_byte"] == pytest.approx(rise)
    assert record["low"] < rise < record["high"]
    assert record["num_documents"] == 30


def test_a_score_against_forgetting_has_a_front_of_its_own(results) -> None:
    fill(results)
    for cell, pattern in zip(results.cells, ("1000", "1100", "1110"), strict=True):
        for name, answers in answers_of(pattern).items():
            results.score({k: cell[k] for k in list(cell)[:8]}, name, answers)
    findings = results.findings({**BENCHMARK, **_shipped()}, tables=())
    keys = {(one.column, f.axis.key) for one in findings.tradeoffs for f in one.fronts}
    assert ("ARC-e", "forgetting") in keys
    assert ("General text", "forgetting") not in keys


def _shipped() -> dict[str, object]:
    from harness.evaluation.benchmarks import BENCHMARKS

    return dict(BENCHMARKS)


def test_without_a_base_model_the_page_says_what_lacks(results, tmp_path) -> None:
    grid = fill(results, has_base=False)
    assert missing_lines(grid.findings(BENCHMARK, tables=())) != []
    assert forgetting_tables(grid.findings(BENCHMARK, tables=())) == []
    report = build_report(grid.input(benchmarks=BENCHMARK, tables=()), tmp_path)
    assert "add `base` to the grid&#39;s methods" in report.page.read_text(encoding="utf-8")
    assert not (tmp_path / "forgetting.md").exists()
