"""Tables 1 and 2: rows, dashes, bold, published values, and a golden page of Markdown."""

from __future__ import annotations

import pytest

from harness.report.render import to_markdown
from harness.report.tables import score_tables, table_records

ARC = ["arc_easy", "arc_challenge"]


TABLE_1, TABLE_2 = "table1", "table2"


def stated(findings, name: str):
    return next(table for table in findings.measured.layout.tables if table.name == name)


def table_of(results, name: str, rank: int = 0, **fields):
    findings = results.findings(**fields)
    return score_tables(stated(findings, name), findings)[rank]


def row_of(table, method: str):
    return next(row for row in table.rows if row.entries[1].text == method)


def test_golden_table(results, answer) -> None:
    results.add("base", None, answer("1000", ARC))
    results.add("zero-init-linear", 0, answer("1110", ARC))
    results.add("random-init", 0, answer("1100", ["arc_easy"]))
    text = to_markdown(table_of(results, TABLE_1))
    # One seed: sqrt(var/4) is 0.25 for 1 of 4 and 0.2887 for 2 of 4; ARC avg: that / sqrt(2).
    assert text.splitlines()[:11] == [
        "**Table 1. Zero-init attention (linear) against random-init attention**",
        "",
        "lm-eval protocol · 0-shot · all items",
        "",
        "| Model | Method | Seeds | ARC-e | ARC-c | ARC avg | MMLU | HellaSwag | TruthfulQA "
        "| Average |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| tiny | Base model |  | 25.00 ± 25.00 | 25.00 ± 25.00 | 25.00 ± 17.68 | – | – | – | – |",
        "|  | Zero-init + linear | 1 | 75.00 ± 25.00 | 75.00 ± 25.00 | 75.00 ± 17.68 "
        "| – | – | – | – |",
        "|  | Random-init | 1 | 50.00 ± 28.87 | – | – | – | – | – | – |",
        "|  | *Chance* |  | *25.02* | *25.02* | *25.02* | – | – | – | – |",
        "",
    ]


def test_table_2_has_the_papers_order_and_parameters(small_grid) -> None:
    table = table_of(small_grid, TABLE_2)
    assert [row.entries[1].text for row in table.rows] == [
        "Base model",
        "Full fine-tuning",
        "LoRA",
        "Zero-init + linear",
        "Zero-init + non-linear",
        "Chance",
    ]
    assert row_of(table, "LoRA").entries[2].text == "1.23M"


def test_a_method_of_neither_table_has_a_table_of_its_own(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    results.add("dora", 0, answer("1100"))
    results.add("random-init", 0, answer("1100"))
    assert [row.entries[1].text for row in table_of(results, TABLE_2).rows] == ["LoRA", "Chance"]
    table = table_of(results, "methods")
    assert table.title == "Methods in no other table: dora"
    assert [row.entries[1].text for row in table.rows] == ["dora", "Chance"]


def test_variants_of_a_method_have_rows_and_names_of_their_own(results, answer) -> None:
    results.add("lora", 0, answer("1111"), label="lora-r64")
    assert row_of(table_of(results, TABLE_2), "LoRA (lora-r64)")
    results.add("lora", 0, answer("1100"))
    table = table_of(results, TABLE_2)
    assert [row.entries[1].text for row in table.rows[:2]] == ["LoRA", "… lora-r64"]
    assert row_of(table, "… lora-r64").entries[4].text == "100.00"
    assert any("the label is the grid's" in text for text in table.caption)
    assert row_of(table, "LoRA").entries[4].text == "50.00"


def test_bold_is_the_better_of_linear_and_nonlinear_per_model(results, answer) -> None:
    results.add("full", 0, answer("1111", ARC))
    results.add("zero-init-linear", 0, answer("1100", ARC))
    results.add("zero-init-nonlinear", 0, answer("1110", ["arc_easy"]) | answer("1100", ARC[1:]))
    table = table_of(results, TABLE_2)
    bold = {row.entries[1].text: [e.bold for e in row.entries[4:7]] for row in table.rows[:3]}
    assert bold == {
        "Full fine-tuning": [False, False, False],
        "Zero-init + linear": [False, False, False],
        # ARC-c is a tie.
        "Zero-init + non-linear": [True, False, True],
    }


def test_other_settings_of_a_method_are_no_rivals_and_never_bold(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100"))
    results.add("zero-init-linear", 0, answer("1111"), label="longer")
    results.add("zero-init-nonlinear", 0, answer("1110"))
    table = table_of(results, TABLE_2)
    assert all(entry.bold for entry in row_of(table, "Zero-init + non-linear").entries[4:])
    assert not any(entry.bold for entry in row_of(table, "… longer").entries)


def test_nothing_is_bold_beside_a_missing_rival(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100"))
    results.add("zero-init-nonlinear", 0, status="missing")
    table = table_of(results, TABLE_2)
    assert not any(entry.bold for row in table.rows for entry in row.entries)


def test_published_values_stand_only_where_they_were_measured_alike(results, answer) -> None:
    answers = answer("10" * 1188, ["arc_easy"]) | answer("10" * 5021, ["hellaswag"])
    results.add("lora", 0, answers, model="llama-7b")
    published = row_of(table_of(results, TABLE_2), "published")
    assert [e.text for e in published.entries[2:]] == ["4.2M", "", *"––––", "77.53", "–", "–"]
    assert published.is_reference


def test_a_limit_or_another_model_has_no_published_value(results, answer) -> None:
    results.add("lora", 0, answer("10", ["hellaswag"]), model="llama-7b", limit=2)
    results.add("lora", 0, answer("10" * 5021, ["hellaswag"]), model="llama-8b")
    findings = results.findings()
    seven, eight = findings.lines[stated(findings, TABLE_2), findings.measured.groups[1]]
    assert seven.matches == frozenset()
    assert eight.published is None


def test_scores_of_differing_limits_share_no_table(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100", ARC), limit=4)
    results.add("random-init", 0, answer("111000", ARC))
    full, limited = table_of(results, TABLE_1), table_of(results, TABLE_1, rank=1)
    assert [e.text for e in row_of(full, "Zero-init + linear").entries[3:5]] == ["–", "–"]
    assert [e.text for e in row_of(limited, "Random-init").entries[3:5]] == ["–", "–"]
    assert "all items" in full.subtitle
    assert "limit 4" in limited.subtitle
    assert full.name != limited.name


def test_mean_over_seeds_and_its_count(results, answer) -> None:
    for seed, pattern in enumerate(("1100", "1110", "1111")):
        results.add("zero-init-linear", seed, answer(pattern, ["arc_easy"]))
    row = row_of(table_of(results, TABLE_1), "Zero-init + linear")
    assert [e.text for e in row.entries[2:4]] == ["3", "75.00"]


def test_records_hold_numbers_without_rounding_to_print(results, answer) -> None:
    results.add("lora", 0, answer("110", ["arc_easy"]))
    findings = results.findings()
    record = table_records(stated(findings, TABLE_2), findings)[0]
    assert record["value_percent"] == pytest.approx(200 / 3, abs=1e-6)
    assert (record["column"], record["num_seeds"], record["num_items"]) == ("ARC-e", 1, 3)
    assert record["published_percent"] is None


def test_the_bound_without_items_is_marked_and_explained(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    results.items.clear()
    table = table_of(results, TABLE_2)
    assert row_of(table, "LoRA").entries[4].error.endswith("†")
    assert any(note.startswith("†") for note in table.notes)
