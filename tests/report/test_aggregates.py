"""The tables of one number over many benchmarks."""

from __future__ import annotations

import pytest

from harness.analysis.findings import Findings
from harness.grid.questions import ClaimSpec
from harness.report.aggregates import aggregate_records, aggregate_tables
from harness.report.contents import table_files
from tests.fixtures.results import GridResults, answers_of


@pytest.fixture
def findings(results: GridResults) -> Findings:
    results.add("base", None, answers_of("1000"))
    for seed, pattern in enumerate(("1100", "1110", "1100")):
        results.add("lora", seed, answers_of(pattern))
    results.add("full", 0, answers_of("1111"))
    return results.findings(claims=(ClaimSpec(better="full", than="lora"),))


def test_each_row_has_its_mean_and_each_pair_its_probability(findings) -> None:
    means, pairs = aggregate_tables(findings)
    rows = {row.entries[1].text: [one.text for one in row.entries[2:]] for row in means.rows}
    assert rows["Base model"] == ["", "25.00", "–"]
    assert rows["LoRA"][:2] == ["3", "55.56"]
    assert rows["LoRA"][2] != "–"
    (pair,) = pairs.rows
    texts = [entry.text for entry in pair.entries[1:]]
    assert texts == ["Full fine-tuning > LoRA", "1 / 3", "100.0", "–"]


def test_captions_name_benchmarks_source_and_what_the_interval_knows(findings) -> None:
    for table in aggregate_tables(findings):
        text = " ".join(table.caption)
        assert "ARC-e, ARC-c, MMLU, HellaSwag, TruthfulQA" in text
        assert "2108.13264" in text
        assert "too narrow" in text
        assert "chance not subtracted" in text


def test_the_csv_has_a_row_for_each_number(findings) -> None:
    records = aggregate_records(findings)
    assert [record["number"] for record in records] == [
        *["interquartile mean"] * 3,
        "probability of improvement",
    ]
    assert records[-1]["over"] == "lora"
    assert records[-1]["value_percent"] == 100.0
    assert records[0]["low_percent"] is None


def test_files_are_there_where_there_are_three_benchmarks(findings, results) -> None:
    names = {name for name, _ in table_files(findings)}
    assert {"aggregates.md", "aggregates.tex", "aggregates.csv"} <= names
    results.scores = [one for one in results.scores if one["benchmark"] in ("arc_easy", "mmlu")]
    names = {name for name, _ in table_files(results.findings())}
    assert not any(name.startswith("aggregates") for name in names)
