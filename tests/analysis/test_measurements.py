"""Entries and differences: what is missing stays missing, what is paired is paired by item."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import ttest_rel

from harness.analysis.measurements import Measurements
from harness.evaluation.benchmarks import BENCHMARKS


def measure(results, **fields) -> Measurements:
    return Measurements(results.input(**fields), BENCHMARKS)


def variant(measured: Measurements, method: str, fraction: float | None = 1.0):
    return next(v for v in measured.cells if (v.method, v.fraction) == (method, fraction))


def test_an_average_without_one_of_its_parts_is_missing(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "arc_challenge", "mmlu", "hellaswag"]))
    measured = measure(results)
    lora = variant(measured, "lora")
    (group,) = measured.groups
    assert measured.estimate(lora, group, "ARC avg").value == 0.5
    assert measured.estimate(lora, group, "TruthfulQA") is None
    assert measured.estimate(lora, group, "Average") is None


def test_average_weighs_arc_as_one_benchmark(results, answer) -> None:
    answers = answer("1111", ["arc_easy", "arc_challenge"])
    answers |= answer("0000", ["mmlu", "hellaswag", "truthfulqa_mc1"])
    results.add("lora", 0, answers)
    measured = measure(results)
    estimate = measured.estimate(variant(measured, "lora"), measured.groups[0], "Average")
    assert estimate.value == 0.25
    assert estimate.num_items == 20


def test_a_seed_counts_in_an_average_only_with_all_its_parts(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "arc_challenge"]))
    results.add("lora", 1, answer("1111", ["arc_easy"]))
    measured = measure(results)
    lora, (group,) = variant(measured, "lora"), measured.groups
    assert measured.estimate(lora, group, "ARC-e").num_seeds == 2
    assert measured.estimate(lora, group, "ARC avg").num_seeds == 1
    assert measured.seed_scores(lora, group, "ARC avg") == {0: 0.5}


def test_without_items_the_scores_own_errors_are_used(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    measured = measure(results, items=lambda cell_id, benchmark: None)
    estimate = measured.estimate(variant(measured, "lora"), measured.groups[0], "ARC-e")
    assert estimate.stderr == pytest.approx(statistics.stdev([1, 1, 0, 0]) / 2)
    assert not estimate.from_items


def test_items_of_another_limit_are_not_taken_for_this_score(results, answer) -> None:
    cell_id = results.add("lora", 0, answer("1100", ["arc_easy"]))
    results.items[cell_id, "arc_easy"] = results.items[cell_id, "arc_easy"].iloc[:2]
    measured = measure(results)
    estimate = measured.estimate(variant(measured, "lora"), measured.groups[0], "ARC-e")
    assert estimate.value == 0.5
    assert not estimate.from_items


def test_differences_are_paired_by_item_whatever_the_order(results, answer) -> None:
    left = results.add("zero-init-linear", 0, answer("11110000", ["arc_easy"]))
    results.add("random-init", 0, answer("11000000", ["arc_easy"]))
    results.items[left, "arc_easy"] = results.items[left, "arc_easy"].iloc[::-1]
    measured = measure(results)
    found = measured.difference(
        variant(measured, "zero-init-linear"),
        variant(measured, "random-init"),
        measured.groups[0],
        "ARC-e",
    )
    paired = [0, 0, 1, 1, 0, 0, 0, 0]
    assert found.estimate.value == 0.25
    assert found.estimate.stderr == pytest.approx(statistics.stdev(paired) / math.sqrt(8))
    # Two discordant items, both for the left: 2 · (1/2)².
    # Of these two models; one seed says nothing of the methods.
    assert (found.p_value, found.p_models) == (None, 0.5)
    assert found.test == "McNemar, exact"


def test_other_items_are_no_pair(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1111", ["arc_easy"]))
    other = results.add("random-init", 0, answer("1100", ["arc_easy"]))
    results.items[other, "arc_easy"] = results.items[other, "arc_easy"].assign(
        question_id=["a", "b", "c", "d"]
    )
    measured = measure(results)
    pair = variant(measured, "zero-init-linear"), variant(measured, "random-init")
    assert measured.difference(*pair, measured.groups[0], "ARC-e") is None


def test_the_base_model_stands_against_each_seed_and_others_against_their_own(
    results, answer
) -> None:
    results.add("base", None, answer("1000", ["arc_easy"]))
    for seed, pattern in enumerate(("1100", "1110", "1111")):
        results.add("zero-init-linear", seed, answer(pattern, ["arc_easy"]))
    results.add("random-init", 1, answer("1100", ["arc_easy"]))
    measured = measure(results)
    linear, (group,) = variant(measured, "zero-init-linear"), measured.groups
    base = variant(measured, "base", None)
    against_base = measured.difference(linear, base, group, "ARC-e")
    assert against_base.estimate.num_seeds == 3
    assert against_base.estimate.value == pytest.approx(0.5)
    assert against_base.test == "t, items × seeds"
    against_other = measured.difference(linear, variant(measured, "random-init"), group, "ARC-e")
    assert against_other.estimate.num_seeds == 1
    assert against_other.estimate.value == pytest.approx(0.25)


@pytest.mark.parametrize(("number", "test"), [(3, "sign flips"), (300, "t, items")])
def test_scores_that_are_no_right_or_wrong_are_permuted_where_few_else_get_students_t(
    results, number, test
) -> None:
    results.add("zero-init-linear", 0, {"arc_easy": [0.5, 0.7, 0.9] * (number // 3)})
    results.add("random-init", 0, {"arc_easy": [0.5, 0.1, 0.2] * (number // 3)})
    measured = measure(results)
    pair = variant(measured, "zero-init-linear"), variant(measured, "random-init")
    found = measured.difference(*pair, measured.groups[0], "ARC-e")
    assert found.test == test
    if test == "sign flips":  # both that differ do so in one direction: two of four signs
        assert found.p_models == 0.5
    else:
        assert found.p_models == found.estimate.p_value


def test_tables_take_the_largest_planned_fraction_even_while_it_is_missing(results, answer) -> None:
    results.add("base", None, answer("1000"))
    results.add("lora", 0, answer("1100"), fraction=0.1)
    results.add("lora", 0, fraction=1.0, status="missing")
    measured = measure(results)
    assert [v.fraction for v in measured.table_variants("tiny")] == [None, 1.0]
    lora = variant(measured, "lora", 1.0)
    assert measured.estimate(lora, measured.groups[0], "ARC-e") is None


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_counts_as_not_measured(results, answer, value) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    results.add("lora", 1, answer("1110", ["arc_easy"]))
    results.scores[0]["value"] = value
    findings = results.findings()
    (variant,) = findings.measured.cells
    (group,) = findings.measured.groups
    estimate = findings.measured.estimate(variant, group, "ARC-e")
    assert (estimate.value, estimate.num_seeds) == (0.75, 1)
    assert findings.not_numbers == ("tiny-lora-1.0-0: arc_easy acc",)


def test_an_item_that_is_no_number_leaves_the_score_without_its_items(results, answer) -> None:
    results.add("base", None, answer("1000", ["arc_easy"]))
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    next(iter(results.items.values())).loc[0, "acc"] = math.nan
    findings = results.findings()
    (group,) = findings.measured.groups
    base, lora = findings.measured.cells
    assert not findings.measured.estimate(base, group, "ARC-e").from_items
    assert findings.measured.difference(lora, base, group, "ARC-e") is None


def test_a_share_that_is_no_mean_over_items_is_tested_over_the_seeds(results) -> None:
    values = {"lora": (0.5, 0.6, 0.4), "full": (0.55, 0.7, 0.45)}
    for method, scores in values.items():
        for seed, value in enumerate(scores):
            cell_id = results.add(method, seed, {"f": [1.0, 0.0]}, metric="f1", value=value)
            results.items[cell_id, "f"] = results.items[cell_id, "f"].drop(columns="f1")
    measured = measure(results)
    (group,) = measured.groups
    pair = variant(measured, "full"), variant(measured, "lora")
    found = measured.difference(*pair, group, "f")
    assert (found.test, found.estimate.num_seeds) == ("t, seeds", 3)
    assert found.p_value == pytest.approx(ttest_rel(values["full"], values["lora"]).pvalue)
    assert found.estimate.value == pytest.approx(0.2 / 3)


def test_a_score_learns_the_spread_over_seeds_from_the_other_methods(results) -> None:
    generator = np.random.default_rng(4)
    for method, seeds in (("lora", 2), ("random-init", 2), ("zero-init-linear", 2), ("full", 1)):
        for seed in range(seeds):
            share = 0.5 + 0.03 * generator.normal()
            answers = (generator.random(400) < share).astype(float)
            results.add(method, seed, {"arc_easy": list(answers)})
    results.add("base", None, {"arc_easy": [1.0, 0.0] * 200})
    measured = results.findings(tables=(), claims=()).measured
    (group,), column = measured.groups, measured.groups[0].columns[0]
    for variant in measured.cells:
        own, pooled = (f(variant, group, column) for f in (measured.estimate, measured.pooled))
        assert pooled.value == own.value
        if variant.method in ("base", "full"):
            assert pooled == own  # of one seed: of new items
        else:
            assert pooled.basis == "pooled"
            assert pooled.df > own.df
