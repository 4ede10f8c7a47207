"""A tuning that chose the published recipe gives two rows of the same trainings, uncompared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.comparisons import compare, untested_claims
from harness.analysis.measurements import Measurements
from harness.analysis.tuned import is_published_recipe, tuned_lines, tuning_cost
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.questions import ClaimSpec
from tests.fixtures.results import GridResults, answers_of
from tests.report.test_tuning import tuning

PATTERNS = {"lora": ("1110", "1010"), "full": ("1100", "0110"), "dora": ("1011", "0001")}


def grid(*, chosen_is_published: bool) -> GridResults:
    """Returns three methods on two seeds; the first one is tuned, and kept its recipe or not."""
    results = GridResults()
    for method, patterns in PATTERNS.items():
        for seed, pattern in enumerate(patterns):
            results.add(method, seed, answers_of(pattern))
    for seed, pattern in enumerate(PATTERNS["lora"] if chosen_is_published else ("1111", "1001")):
        cell_id = results.add("lora", seed, answers_of(pattern), label="lora[tuned]")
        if chosen_is_published:
            for record in (*results.cells, *results.scores):
                if record["cell_id"] == cell_id:
                    record["cell_id"] = f"tiny-lora-1.0-{seed}"
    return results


def measured_of(results: GridResults, **fields) -> Measurements:
    return Measurements(results.input(tunings=(tuning(),), **fields), BENCHMARKS)


def labels(measured: Measurements) -> set[str]:
    return {entry.label for entry in compare(measured, measured.groups[0], "tiny")}


def test_two_rows_of_the_same_trainings_are_not_compared() -> None:
    same, apart = (measured_of(grid(chosen_is_published=one)) for one in (True, False))
    assert "lora[tuned] − LoRA" in labels(apart)
    assert labels(same) == labels(apart) - {"lora[tuned] − LoRA"}
    assert [v.method for v in same.tabled_once] == ["lora", "full", "dora"]
    assert [v.method for v in same.tabled] == ["lora", "full", "dora", "lora[tuned]"]


def test_a_second_row_of_the_same_trainings_changes_no_other_interval() -> None:
    """It would pool a difference that never varies."""
    results = grid(chosen_is_published=True)
    alone = GridResults(
        [one for one in results.cells if one["method"] != "lora[tuned]"],
        [one for one in results.scores if one["method"] != "lora[tuned]"],
        items=results.items,
    )
    found = []
    for each in (results, alone):
        measured = measured_of(each, compare="all")
        entries = compare(measured, measured.groups[0], "tiny")
        found.append(
            [
                (entry.column, entry.estimate.interval)
                for entry in entries
                if (entry.left, entry.right) == ("dora", "Full fine-tuning")
            ]
        )
    assert found[0]
    assert found[0] == found[1]


def test_a_claim_of_the_two_is_not_tested_and_says_why() -> None:
    claim = ClaimSpec(better="lora[tuned]", than="lora")
    measured = measured_of(grid(chosen_is_published=True), claims=(claim,))
    (line,) = untested_claims(measured, compare(measured, measured.groups[0], "tiny"))
    assert line.endswith("both are the same trainings: the tuning chose the published recipe.")
    apart = measured_of(grid(chosen_is_published=False), claims=(claim,))
    assert not list(untested_claims(apart, compare(apart, apart.groups[0], "tiny")))


def test_a_claim_of_what_is_not_chosen_yet_says_so() -> None:
    results = GridResults()
    for method, patterns in PATTERNS.items():
        for seed, pattern in enumerate(patterns):
            results.add(method, seed, answers_of(pattern))
    claims = (ClaimSpec(better="lora[tuned]", than="full[tuned]"),)
    waiting = replace(tuning(), chosen=None)
    measured = Measurements(results.input(tunings=(waiting,), claims=claims), BENCHMARKS)
    (line,) = untested_claims(measured, compare(measured, measured.groups[0], "tiny"))
    assert line.startswith("tiny: lora[tuned] − full[tuned]: the grid's claim is not tested")
    assert line.endswith("no setting of lora is chosen yet.")


@pytest.mark.parametrize("is_same", [True, False])
def test_lines_say_whether_both_are_one(is_same: bool) -> None:
    measured = measured_of(grid(chosen_is_published=is_same))
    assert is_published_recipe(measured, tuning()) is is_same
    for line in tuned_lines(measured, {measured.groups[0]: []}):
        assert line.is_same is is_same
        assert (line.difference is None) is is_same
        if line.difference is not None:
            assert line.difference.value == line.tuned.value - line.published.value


def test_a_tuning_without_winners_has_no_line_and_a_cost() -> None:
    results = GridResults()
    results.add("lora", 0, answers_of("1110"))
    measured = measured_of(results)
    assert not list(tuned_lines(measured, {measured.groups[0]: []}))
    cost = tuning_cost(measured, tuning())
    assert (cost.tuning, cost.training, cost.device) == (40.0, 4000.0, "CPU")
