"""Numbers over many benchmarks: against scipy, by laws, and what goes in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.analysis import comparisons
from harness.analysis.aggregates import (
    RESAMPLES,
    benchmarks_of,
    improvement_interval,
    improvement_lines,
    interquartile_mean,
    mean_interval,
    mean_lines,
    probability_of_improvement,
)
from harness.grid.questions import ClaimSpec
from tests.fixtures.results import ALL, GridResults, answers_of


def runs(seed: int, num_runs: int = 4, num_tasks: int = 6) -> np.ndarray:
    """Scores in steps of 0.1, so that there are ties."""
    return np.random.default_rng(seed).integers(0, 11, size=(num_runs, num_tasks)) / 10


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (3, 5), (5, 7), (8, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_interquartile_mean_is_scipys_trimmed_mean(seed: int, shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(seed).random(shape)
    expected = stats.trim_mean(scores, proportiontocut=0.25, axis=None)
    assert interquartile_mean(scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_interquartile_mean_lies_between_the_quartiles_and_ignores_one_wild_score(
    seed: int,
) -> None:
    scores = np.random.default_rng(seed).random((3, 5))
    value = interquartile_mean(scores)
    assert scores.min() <= value <= scores.max()
    wild = np.where(scores == scores.max(), 1000.0, scores)
    assert interquartile_mean(wild) == pytest.approx(value)
    assert interquartile_mean(2 * scores + 1) == pytest.approx(2 * value + 1)


@pytest.mark.parametrize("seed", range(8))
def test_the_probability_of_improvement_is_the_mann_whitney_u_over_the_pairs(seed: int) -> None:
    left, right = runs(seed, 4), runs(seed + 100, 3)
    shares = [
        stats.mannwhitneyu(left[:, task], right[:, task]).statistic / (4 * 3)
        for task in range(left.shape[1])
    ]
    assert probability_of_improvement(left, right) == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_one_of_two_improves_on_the_other(seed: int) -> None:
    left, right = runs(seed), runs(seed + 100)
    there, back = (
        probability_of_improvement(left, right),
        probability_of_improvement(right, left),
    )
    assert there + back == pytest.approx(1.0)
    assert probability_of_improvement(left, left) == 0.5
    # A monotone change of the scores of a task changes no order.
    assert probability_of_improvement(np.exp(left), np.exp(right)) == pytest.approx(there)
    assert probability_of_improvement(left + 2, right) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_the_value_and_are_those_of_a_bootstrap_within_each_task(seed: int) -> None:
    left, right = np.random.default_rng(seed).random((2, 5, 4))
    generator, means, gains = np.random.default_rng(99), [], []
    for _ in range(4000):
        draws = [
            np.column_stack([generator.choice(task, size=5) for task in scores.T])
            for scores in (left, right)
        ]
        means.append(stats.trim_mean(draws[0], 0.25, axis=None))
        gains.append(np.mean(draws[0][:, None] > draws[1][None]))
    for value, interval, drawn in (
        (interquartile_mean(left), mean_interval(left), means),
        (probability_of_improvement(left, right), improvement_interval(left, right), gains),
    ):
        assert interval is not None
        assert interval[0] <= value <= interval[1]
        assert interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)


def test_intervals_are_the_same_each_time_and_none_of_one_run() -> None:
    scores = runs(5)
    assert mean_interval(scores) == mean_interval(scores)
    assert mean_interval(scores[:1]) is None
    assert improvement_interval(scores, scores[:1]) is None
    assert RESAMPLES >= 2000


def test_runs_that_never_differ_have_an_interval_of_no_width() -> None:
    scores = np.full((3, 4), 0.25)
    assert mean_interval(scores) == (0.25, 0.25)


@pytest.fixture
def grid(results: GridResults) -> GridResults:
    results.add("base", None, answers_of("1000"))
    for seed, pattern in enumerate(("1100", "1110", "1100")):
        results.add("lora", seed, answers_of(pattern))
    for seed, pattern in enumerate(("1110", "1111")):
        results.add("full", seed, answers_of(pattern))
    return results


CLAIMS = (ClaimSpec(better="full", than="lora"),)


def test_every_row_has_its_mean_and_every_claimed_pair_its_probability(grid) -> None:
    measured = grid.findings(claims=CLAIMS).measured
    lines = {line.variant.method: line for line in mean_lines(measured)}
    assert lines["base"].value == pytest.approx(0.25)
    assert lines["base"].interval is None
    assert lines["lora"].num_seeds == 3
    # Three runs on five benchmarks: 10 times 0.5 and 5 times 0.75, of which three of each end go.
    assert lines["lora"].value == pytest.approx((7 * 0.5 + 2 * 0.75) / 9)
    (pair,) = improvement_lines(measured)
    assert (pair.left.method, pair.right.method) == ("full", "lora")
    # 0.75 and 1 against 0.5, 0.75, 0.5: of six pairs five are won and one is a tie.
    assert pair.value == pytest.approx(5.5 / 6)
    assert len(pair.columns) == 5


def test_averages_and_what_is_no_share_do_not_go_in(results) -> None:
    for name in ("arc_easy", "arc_challenge", "mmlu"):
        results.add("lora", 0, answers_of("1100", [name]))
    results.scores[-1]["unit"] = "perplexity"
    (group,) = results.findings(tables=()).measured.groups
    assert benchmarks_of(group) == ("ARC-e", "ARC-c")


def test_controls_do_not_go_in_and_are_tested_where_a_claim_names_them(results) -> None:
    names = ["arc_easy", "demo_pictures", "demo_pictures_shuffled", "demo_pictures_removed"]
    for method, pattern in (("lora", "1100"), ("full", "1110")):
        results.add(method, 0, answers_of(pattern, names))
    (group,) = results.findings(tables=()).measured.groups
    assert len(group.columns) == 4
    assert benchmarks_of(group) == ("ARC-e", "Demo pictures")
    assert comparisons.tested_columns(group) == ("ARC-e", "Demo pictures")
    named = ClaimSpec(better="full", than="lora", on="demo_pictures_removed")
    (told,) = results.findings(tables=(), claims=[named]).headlines
    assert told.column == "Demo pictures, not shown"


def test_a_score_of_which_less_is_better_is_turned_round(results) -> None:
    names = [name for name in ALL if name != "hellaswag"]
    for method, pattern in (("lora", "1100"), ("full", "1110")):
        results.add(method, 0, answers_of(pattern, names), higher_is_better=False)
    measured = results.findings(tables=(), claims=CLAIMS).measured
    values = {line.variant.method: line.value for line in mean_lines(measured)}
    assert values == {"lora": pytest.approx(0.5), "full": pytest.approx(0.25)}
    (pair,) = improvement_lines(measured)
    assert pair.value == 0.0


def test_of_fewer_than_three_benchmarks_nothing_is_said(results) -> None:
    for method in ("lora", "full"):
        results.add(method, 0, answers_of("1100", ["arc_easy", "mmlu"]))
    measured = results.findings(claims=CLAIMS).measured
    assert list(mean_lines(measured)) == []
    assert list(improvement_lines(measured)) == []
