"""The claims and their correction."""

from __future__ import annotations

import pytest

from harness.analysis.comparisons import compare, compare_with_published, corrected
from harness.analysis.measurements import Measurements
from harness.analysis.published import load_published
from harness.analysis.stats import holm
from harness.evaluation.benchmarks import BENCHMARKS
from harness.report.comparisons import comparison_lists, comparison_records, comparison_tables
from harness.report.render import to_markdown


@pytest.fixture
def measured(small_grid) -> Measurements:
    return Measurements(small_grid.input(), BENCHMARKS)


def test_claims_come_first_then_every_method_against_base(measured) -> None:
    found = corrected(compare(measured, measured.groups[0], "tiny"))
    assert list(dict.fromkeys(entry.label for entry in found)) == [
        "Zero-init + linear − Random-init",
        "Zero-init + non-linear − Zero-init + linear",
        "Full fine-tuning − Base model",
        "LoRA − Base model",
        "Random-init − Base model",
        "Zero-init + linear − Base model",
        "Zero-init + non-linear − Base model",
    ]
    assert len(found) == 7 * 7


def test_holm_goes_over_claims_and_context_apart_and_over_no_part_of_an_average(measured) -> None:
    found = corrected(compare(measured, measured.groups[0], "tiny"))
    for name, number in (("claim", 2), ("context", 5)):
        family = [entry for entry in found if entry.family == name and entry.is_tested]
        assert [entry.column for entry in family] == ["Average"] * number
        assert [entry.p_holm for entry in family] == holm([entry.p_value for entry in family])
    described = [entry for entry in found if entry.column != "Average"]
    assert all(entry.p_value is not None and entry.p_holm is None for entry in described)
    assert not any(entry.is_tested or entry.is_significant for entry in described)


def test_settings_stand_against_their_own_method_and_neither_claim_nor_base(
    results, answer
) -> None:
    results.add("base", None, answer("10001000"))
    for place, label in enumerate(("short", "zero-init-linear", "zero-init-nonlinear", "deep")):
        method = "zero-init-nonlinear" if label in ("zero-init-nonlinear", "deep") else ""
        results.add(method or "zero-init-linear", 0, answer("11101000"[place:] * 8), label=label)
    results.add("lora", 0, answer("11"), label="lora-r64")
    measured = Measurements(results.input(), BENCHMARKS)
    found = corrected(compare(measured, measured.groups[0], "tiny"))
    assert list(dict.fromkeys((entry.family, entry.label) for entry in found)) == [
        ("claim", "Zero-init + non-linear − Zero-init + linear"),
        ("setting", "short − Zero-init + linear"),
        ("setting", "deep − Zero-init + non-linear"),
        ("context", "Zero-init + linear − Base model"),
        ("context", "Zero-init + non-linear − Base model"),
        ("context", "LoRA (lora-r64) − Base model"),
    ]
    for name in ("claim", "setting", "context"):
        family = [entry for entry in found if entry.family == name and entry.is_tested]
        assert [entry.p_holm for entry in family] == holm([entry.p_value for entry in family])
    (table,) = comparison_tables(results.findings())
    assert "over the differences of a method's other settings from its own" in table.notes[0]


def test_labels_stand_for_their_method_where_it_has_no_row_of_its_own(results, answer) -> None:
    for rank in ("a", "b"):
        results.add("zero-init-linear", 0, answer("1100"), label=rank)
    results.add("random-init", 0, answer("1000"))
    measured = Measurements(results.input(), BENCHMARKS)
    found = corrected(compare(measured, measured.groups[0], "tiny"))
    assert list(dict.fromkeys((entry.family, entry.label) for entry in found)) == [
        ("claim", "Zero-init + linear (a) − Random-init"),
        ("claim", "Zero-init + linear (b) − Random-init"),
    ]


def test_a_missing_side_is_a_dash(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100"))
    results.add("random-init", 0, status="missing")
    findings = results.findings()
    (found,) = findings.comparisons.values()
    assert all(entry.estimate is None and entry.p_holm is None for entry in found)
    line = to_markdown(comparison_tables(findings)[0]).splitlines()[6]
    assert line == "| tiny | Zero-init + linear − Random-init | – | – | – | – | – | – | – | – |"
    assert all(record["difference_points"] is None for record in comparison_records(findings))


def test_a_significant_difference_of_methods_has_its_star(results, answer) -> None:
    results.add("base", None, answer("0" * 30, ["arc_easy"]))
    for seed, right in enumerate((25, 24, 26)):
        pattern = "1" * right + "0" * (30 - right)
        results.add("lora", seed, answer(pattern, ["arc_easy"]))
    findings = results.findings()
    entry = comparison_tables(findings)[0].rows[0].entries[3]
    assert (entry.text, entry.error[-1]) == ("+83.33*", entry.error[-1].strip("°"))
    line = to_markdown(comparison_lists(findings)[0]).splitlines()[6]
    assert "| t, items × seeds | +83.33 |" in line


def test_one_seed_of_which_nothing_is_known_speaks_of_two_models_and_is_not_tested(
    results, answer
) -> None:
    results.add("base", None, answer("0" * 30, ["arc_easy"]))
    results.add("lora", 0, answer("1" * 25 + "0" * 5, ["arc_easy"]))
    findings = results.findings()
    table, (listed,) = comparison_tables(findings)[0], comparison_lists(findings)
    entry = table.rows[0].entries[3]
    assert (entry.text, entry.error) == ("+83.33", "± 6.92°")
    assert "these two trained models, not the methods" in table.title
    assert any(note.startswith("° These two trained models") for note in table.notes)
    # The exact p of the items stands in a column of its own, and in none of the methods'.
    heads = dict(zip(listed.header, listed.rows[0].entries, strict=True))
    assert heads["Test"].text == "McNemar, exact"
    assert heads["p of these models"].text == "< 0.001"
    assert (heads["p"].text, heads["p (Holm)"].text) == ("–", "–")
    (found,) = findings.comparisons.values()
    (tested,) = [one for one in found if one.column == "ARC-e"]
    assert tested.is_of_models
    assert (tested.p_value, tested.p_holm, tested.is_significant) == (None, None, False)


def test_published_differences_only_where_the_protocol_matches(results, answer) -> None:
    pattern = "1" * 8000 + "0" * 2042
    answers = answer("10" * 1188, ["arc_easy"]) | answer(pattern, ["hellaswag"])
    results.add("lora", 0, answers, model="llama-7b")
    measured = Measurements(results.input(), BENCHMARKS)
    (entry,) = compare_with_published(measured, load_published(), measured.groups[0], "llama-7b")
    assert entry.column == "HellaSwag"
    assert entry.estimate.value == pytest.approx(8000 / 10042 - 0.7753)


def test_a_smaller_share_of_the_data_is_not_compared_with_the_papers(results, answer) -> None:
    results.add("lora", 0, answer("10" * 5021, ["hellaswag"]), model="llama-7b", fraction=0.5)
    measured = Measurements(results.input(), BENCHMARKS)
    group = measured.groups[0]
    assert compare_with_published(measured, load_published(), group, "llama-7b") == []
