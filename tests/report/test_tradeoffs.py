"""The table and the figures of scores against costs."""

from __future__ import annotations

import pytest

from harness.analysis.findings import Findings
from harness.report.contents import drawings, table_files
from harness.report.tradeoffs import cost_score_records, cost_score_tables, tradeoff_drawings
from tests.fixtures.results import GridResults, answers_of


@pytest.fixture
def findings(results: GridResults) -> Findings:
    results.add("base", None, answers_of("1000" * 10))
    for method, size, pattern in (("lora", 4_000_000, "1110"), ("full", 7_000_000_000, "1100")):
        for seed in (0, 1):
            results.add(method, seed, answers_of(pattern * 10))
            results.cells[-1]["trainable_parameters"] = size
    return results.findings()


def test_the_table_has_each_score_its_costs_and_its_places(findings) -> None:
    (table,) = cost_score_tables(findings)
    assert table.header == ("Score", "Method", "Percent", "95% interval", "Trained parameters")
    rows = [[(entry.text, entry.error) for entry in row.entries] for row in table.rows]
    average = {row[1][0]: row for row in rows[3:]}
    assert average["LoRA"][2][0] == "75.00"
    assert average["LoRA"][4] == ("4M", "front")
    assert average["Full fine-tuning"][4] == ("7B", "dominated")
    assert average["Base model"][4] == ("0", "front")


def test_the_csv_has_a_row_for_each_score_cost_and_method(findings) -> None:
    records = cost_score_records(findings)
    assert len(records) == 2 * 3
    full = next(r for r in records if (r["column"], r["method"]) == ("Average", "full"))
    assert full["cost"] == "trainable_parameters"
    assert full["cost_mean"] == 7e9
    assert full["value_percent"] == 50.0
    assert (full["place"], full["dominated_by"]) == ("dominated", "lora")


def test_files_and_figures_stand_in_the_report(findings) -> None:
    assert {"pareto.md", "pareto.tex", "pareto.csv"} <= {name for name, _ in table_files(findings)}
    names = [one.name for one in tradeoff_drawings(findings, {})]
    # ARC's average is a part of the one that is tested: it stands in the table.
    assert names == ["pareto-tiny-average"]
    assert set(names) <= {one.name for one in drawings(findings)}


def test_what_has_one_cost_has_neither_table_nor_figure(results) -> None:
    results.add("lora", 0, answers_of("1100"))
    results.add("full", 0, answers_of("1100"))
    findings = results.findings()
    assert cost_score_tables(findings) == []
    assert list(tradeoff_drawings(findings, {})) == []
    assert not any(name.startswith("pareto") for name, _ in table_files(findings))


def test_no_interval_of_shares_leaves_0_to_100(results) -> None:
    results.add("base", None, answers_of("1000" * 10))
    for method, pattern in (("lora", "1111" * 10), ("full", "1111" * 9 + "1110")):
        for seed in (0, 1):
            results.add(method, seed, answers_of(pattern))
            results.cells[-1]["trainable_parameters"] = {"lora": 5, "full": 9}[method]
    records = cost_score_records(results.findings())
    assert any(record["value_percent"] > 97 for record in records)
    assert all(0 <= record["low_percent"] <= record["high_percent"] <= 100 for record in records)
