"""The published numbers are consistent and unaltered, and match only what was measured alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from harness.analysis.columns import Group, Setting
from harness.analysis.published import load_published
from harness.analysis.stats import Estimate
from harness.analysis.variants import Variant
from harness.grid.column_sets import columns_of

PUBLISHED = load_published()
ROWS = [(name, row) for name in ("table1", "table2") for row in PUBLISHED.tables[name]]
SCIENCEQA = PUBLISHED.tables["scienceqa"]
HELLASWAG = Setting("hellaswag", "lm-eval", "acc_norm", 10, None, "1.0", "0.4.13", "x")
NINE = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg")
ARC = Setting("arc_easy", "lm-eval", "acc", 0, None, "1.0", "0.4.13", "x")


def variant(model: str, method: str, picture_layers: int | None = None) -> Variant:
    return Variant(model, method, method, method, 1.0, picture_layers=picture_layers)


def row_of(model: str, method: str, column: str = "MMLU"):
    return PUBLISHED.row(variant(model, method), column)


@pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=[f"{name}-{row.model}-{row.method}" for name, row in ROWS]
)
@pytest.mark.parametrize("average", ["ARC avg", "Average"])
def test_printed_averages_are_the_means_of_their_parts(table, row, average) -> None:
    mean = sum(weight * row.values[part] for part, weight in PUBLISHED.averages[average].items())
    # Two printed decimals, of parts that were rounded themselves.
    assert row.values[average] == pytest.approx(mean, abs=0.0101)


def test_a_row_of_both_tables_is_the_same() -> None:
    for row in PUBLISHED.tables["table1"]:
        for other in PUBLISHED.tables["table2"]:
            if (row.model, row.method) == (other.model, other.method):
                assert row.values == other.values


def test_the_numbers_are_those_that_were_printed() -> None:
    record = asdict(PUBLISHED)
    del record["averages"], record["titles"], record["notes"]  # what the numbers are called
    text = json.dumps(record, sort_keys=True).encode()
    # A change of any number, source or protocol is deliberate.
    assert hashlib.sha256(text).hexdigest()[:16] == "0f712118db6f01da"


def test_spot_checks() -> None:
    row = row_of("llama-13b", "zero-init-nonlinear")
    assert row is not None
    assert (row.params, row.values["MMLU"], row.values["Average"]) == ("3.3M", 51.32, 61.67)
    assert row_of("llama-7b", "random-init").values["TruthfulQA"] == 37.82
    assert row_of("llama-13b", "full") is None
    assert PUBLISHED.losses[1].values[0] == 4.023
    assert len(PUBLISHED.anchors) == 16


@pytest.mark.parametrize(
    ("column", "points"),
    [("ARC-e", 1.0), ("ARC-c", 1.4), ("MMLU", 0.4), ("HellaSwag", 0.4), ("TruthfulQA", 1.7)],
)
def test_published_errors_are_binomial(column: str, points: float) -> None:
    row = row_of("llama-7b", "zero-init-linear")
    assert 100 * PUBLISHED.stderr(row, column) == pytest.approx(points, abs=0.06)


def test_of_13b_the_mmlu_difference_alone_is_significant() -> None:
    linear = row_of("llama-13b", "zero-init-linear")
    nonlinear = row_of("llama-13b", "zero-init-nonlinear")
    error = 2**0.5 * PUBLISHED.stderr(linear, "MMLU")
    z = (nonlinear.values["MMLU"] - linear.values["MMLU"]) / 100 / error
    assert z == pytest.approx(2.8, abs=0.05)


def test_hellaswag_matches_only_as_it_was_measured() -> None:
    def matches(setting: Setting, num_items: int = 10042, **deviations: tuple[str]) -> bool:
        group = Group("lm-eval", {"HellaSwag": setting}, 0, deviations)
        return PUBLISHED.matches("HellaSwag", group, num_items)

    assert matches(HELLASWAG)
    assert not matches(replace(HELLASWAG, shots=0))
    assert not matches(replace(HELLASWAG, metric="acc"))
    assert not matches(replace(HELLASWAG, limit=100))
    assert not matches(HELLASWAG, HellaSwag=(": few-shot examples from a sample.",))
    assert not matches(HELLASWAG, num_items=10041)


def test_arc_of_lm_eval_matches_nothing_and_of_the_paper_protocol_it_does() -> None:
    theirs = replace(ARC, protocol="paper", metric="match", temperature=0.1)
    assert not PUBLISHED.matches("ARC-e", Group("lm-eval", {"ARC-e": ARC}, 0), 2376)
    assert PUBLISHED.matches("ARC-e", Group("paper", {"ARC-e": theirs}, 0), 2376)
    greedy = replace(theirs, temperature=0.0)
    assert not PUBLISHED.matches("ARC-e", Group("paper", {"ARC-e": greedy}, 0), 2376)
    challenge, averages = replace(theirs, benchmark="paper_arc_challenge"), PUBLISHED.averages
    both = Group("paper", {"ARC-e": theirs, "ARC-c": challenge}, 0, weights=averages)
    assert PUBLISHED.matches("ARC avg", both, 2376 + 1172)
    other = {"ARC avg": {"ARC-e": 0.6, "ARC-c": 0.4}}
    assert not PUBLISHED.matches("ARC avg", replace(both, weights=other), 2376 + 1172)
    mixed = Group("paper", {"ARC-e": theirs, "ARC-c": ARC}, 0, weights=averages)
    assert not PUBLISHED.matches("ARC avg", mixed, 2376 + 1172)


def test_difference_from_published_is_unpaired() -> None:
    row = row_of("llama-7b", "zero-init-linear")
    ours = Estimate(0.80, 0.004, float("inf"), 1, 10042, True)
    difference = PUBLISHED.difference(ours, row, "HellaSwag")
    assert difference.value == pytest.approx(0.80 - 0.7679)
    expected = (0.004**2 + 0.7679 * (1 - 0.7679) / 10042) ** 0.5
    assert difference.stderr == pytest.approx(expected)


@pytest.mark.parametrize("row", SCIENCEQA, ids=lambda row: row.name)
def test_scienceqa_s_averages_are_those_of_its_subjects_and_grades(row) -> None:
    sizes = {column: PUBLISHED.columns[column].num_items for column in NINE}
    assert sizes["Avg"] == 4241 == sizes["NAT"] + sizes["SOC"] + sizes["LAN"]
    assert sizes["Avg"] == sizes["G1-6"] + sizes["G7-12"]
    assert tuple(sorted(row.values)) == tuple(sorted(NINE))
    # Of people, who answered fewer questions, the printed average is of its own.
    tolerance = 0.02 if row.name != "Human" else 1.5
    for parts in (("NAT", "SOC", "LAN"), ("G1-6", "G7-12")):
        mean = sum(row.values[part] * sizes[part] for part in parts) / sizes["Avg"]
        assert row.values["Avg"] == pytest.approx(mean, abs=tolerance), parts


def test_scienceqa_s_rows_are_told_by_pictures_and_layers() -> None:
    def published(method: str, layers: int | None, table: str) -> float | None:
        row = PUBLISHED.table_row(table, variant("llama-7b", method, layers))
        return None if row is None else row.values["Avg"]

    assert published("zero-init-linear", None, "scienceqa") == 78.31
    assert published("zero-init-linear", 30, "scienceqa") == 85.19
    assert published("zero-init-linear", 10, "scienceqa") is None
    layers = (10, 20, 30, 32)
    shown = [published("zero-init-linear", n, "scienceqa-ablation") for n in layers]
    assert shown == [55.95, 73.36, 83.85, 81.03]
    assert published("random-init", 30, "scienceqa-ablation") == 40.77
    assert published("random-init", None, "scienceqa-ablation") is None
    assert [row.name for row in PUBLISHED.references("scienceqa")] == [
        *("Human", "GPT-3 (CoT)", "UnifiedQA (CoT)", "MM-CoT, text only", "MM-CoT")
    ]
    # The ablations are of the validation split: no score of the test split is compared with them.
    assert PUBLISHED.splits == {"scienceqa-ablation": "validation"}
    assert PUBLISHED.row(variant("llama-7b", "random-init", 30), "Avg") is None


def test_two_methods_are_compared_within_one_published_study() -> None:
    pictures, text = (variant("llama-7b", "zero-init-linear", n) for n in (30, None))
    first, second, split = PUBLISHED.rows_of_two(pictures, text, "IMG")
    assert (first.values["IMG"], second.values["IMG"], split) == (80.32, 70.35, "")
    random = variant("llama-7b", "random-init", 30)
    first, second, split = PUBLISHED.rows_of_two(pictures, random, "Avg")
    assert (first.values["Avg"], second.values["Avg"], split) == (83.85, 40.77, "validation")
    assert PUBLISHED.rows_of_two(pictures, random, "IMG") is None
    full, lora = (variant("llama-7b", name) for name in ("full", "random-init"))
    first, second, split = PUBLISHED.rows_of_two(full, lora, "MMLU")  # of tables 2 and 1
    assert (first.values["MMLU"], second.values["MMLU"], split) == (37.25, 35.12, "")


def test_a_scienceqa_column_matches_by_its_items() -> None:
    where = columns_of("scienceqa")
    ours = Setting("paper_scienceqa", "scienceqa", "acc", 0, None, "1", "0.4.13", "x", 0.0)

    def matches(column: str, number: int, **fields) -> bool:
        setting = replace(ours, **{"where": where[column], **fields})
        return PUBLISHED.matches(column, Group("scienceqa", {column: setting}, 0), number)

    assert matches("IMG", 2017)
    assert matches("IMG", 2017, temperature=None)
    assert matches("Avg", 4241)
    assert not matches("IMG", 2017, where=where["TXT"])
    assert not matches("IMG", 2016)
    assert not matches("Avg", 4241, protocol="lm-eval", benchmark="scienceqa")
    assert not matches("Avg", 4241, limit=4241)
    assert not matches("Avg", 4241, temperature=0.1)
