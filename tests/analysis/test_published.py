"""The published numbers are consistent and unaltered, and match only what was measured alike."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from harness.analysis.columns import Group, Setting
from harness.analysis.published import load_published
from harness.analysis.stats import Estimate

PUBLISHED = load_published()
ROWS = [(name, row) for name, rows in PUBLISHED.tables.items() for row in rows]
HELLASWAG = Setting("hellaswag", "lm-eval", "acc_norm", 10, None, "1.0", "0.4.13", "x")
ARC = Setting("arc_easy", "lm-eval", "acc", 0, None, "1.0", "0.4.13", "x")


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
    del record["averages"], record["titles"]  # what the numbers are called, no numbers
    text = json.dumps(record, sort_keys=True).encode()
    # A change of any number, source or protocol is deliberate.
    assert hashlib.sha256(text).hexdigest()[:16] == "64ea7bd205106f5f"


def test_spot_checks() -> None:
    row = PUBLISHED.row("llama-13b", "zero-init-nonlinear")
    assert row is not None
    assert (row.params, row.values["MMLU"], row.values["Average"]) == ("3.3M", 51.32, 61.67)
    assert PUBLISHED.row("llama-7b", "random-init").values["TruthfulQA"] == 37.82
    assert PUBLISHED.row("llama-13b", "full") is None
    assert PUBLISHED.losses[1].values[0] == 4.023
    assert len(PUBLISHED.anchors) == 16


@pytest.mark.parametrize(
    ("column", "points"),
    [("ARC-e", 1.0), ("ARC-c", 1.4), ("MMLU", 0.4), ("HellaSwag", 0.4), ("TruthfulQA", 1.7)],
)
def test_published_errors_are_binomial(column: str, points: float) -> None:
    row = PUBLISHED.row("llama-7b", "zero-init-linear")
    assert 100 * PUBLISHED.stderr(row, column) == pytest.approx(points, abs=0.06)


def test_of_13b_the_mmlu_difference_alone_is_significant() -> None:
    linear = PUBLISHED.row("llama-13b", "zero-init-linear")
    nonlinear = PUBLISHED.row("llama-13b", "zero-init-nonlinear")
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
    row = PUBLISHED.row("llama-7b", "zero-init-linear")
    ours = Estimate(0.80, 0.004, float("inf"), 1, 10042, True)
    difference = PUBLISHED.difference(ours, row, "HellaSwag")
    assert difference.value == pytest.approx(0.80 - 0.7679)
    expected = (0.004**2 + 0.7679 * (1 - 0.7679) / 10042) ** 0.5
    assert difference.stderr == pytest.approx(expected)
