"""Win rates against hand calculation, a jackknife, and GPT-4's published verdicts of AlpacaEval."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.win_rates import (
    length_controlled,
    question_means,
    win_rate,
    win_rate_difference,
)
from tests.fixtures.real_data import DATA_ROOT

NAN = math.nan
FOLDER = Path(DATA_ROOT or "") / "alpaca_eval"
REAL = pytest.mark.skipif(
    not (DATA_ROOT and FOLDER.is_dir()),
    reason="needs AlpacaEval's published annotations: set ZBENCH_DATA_ROOT",
)


def published(annotator: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns preferences and length differences of Alpaca-7B, of one seed.

    In the files 1 is for the reference, 2 for Alpaca, and 0 a draw.
    """
    rows = json.loads((FOLDER / f"alpaca-7b_annotations_{annotator}.json").read_text())
    stated = np.array([row["preference"] for row in rows], dtype=float)
    preferences = np.where(stated == 0, 1.5, stated) - 1
    lengths = [len(row["output_2"]) - len(row["output_1"]) for row in rows]
    return preferences[None], np.array(lengths, dtype=float)[None]


@REAL
@pytest.mark.parametrize(
    ("annotator", "value", "stderr"),
    [("gpt4", 26.459627, 1.535711), ("gpt4_turbo", 2.591451, 0.487086)],
)
def test_published_annotations_give_the_published_win_rates(
    annotator: str, value: float, stderr: float
) -> None:
    found = win_rate(published(annotator)[0])
    assert found.value is not None
    assert found.stderr is not None
    assert (round(100 * found.value, 6), round(100 * found.stderr, 6)) == (value, stderr)
    assert found.num_questions == 805


@REAL
def test_published_annotations_give_the_length_controlled_win_rate() -> None:
    found = length_controlled(*published("gpt4"))
    assert found.value is not None
    assert round(100 * found.value, 1) == 25.7  # with all of AlpacaEval's terms: 26.3
    assert not found.extrapolates


@REAL
def test_the_80_questions_of_vicuna_have_an_error_of_five_points() -> None:
    rows = json.loads((FOLDER / "alpaca-7b_annotations_gpt4.json").read_text())
    of_vicuna = [row["dataset"] == "vicuna" for row in rows]
    found = win_rate(published("gpt4")[0][:, of_vicuna])
    assert found.num_questions == 80
    assert found.stderr == pytest.approx(0.0470, abs=5e-5)
    assert found.num_ties == 1
    assert found.detectable == pytest.approx(2.836 * 0.5 * math.sqrt(79 / 80 / 80), rel=1e-3)


@REAL
def test_answers_that_are_nearly_all_shorter_are_told() -> None:
    assert length_controlled(*published("gpt4_turbo")).extrapolates


def test_ties_count_half_and_the_error_is_over_questions() -> None:
    found = win_rate(np.array([[1.0, 0.5, 0.0, 1.0, NAN]]))
    assert found.value == pytest.approx(0.625)
    assert found.stderr == pytest.approx(np.std([1, 0.5, 0, 1], ddof=1) / 2)
    assert (found.num_questions, found.num_wins, found.num_ties, found.num_losses) == (4, 2, 1, 1)


def test_seeds_are_averaged_per_question_first() -> None:
    table = np.array([[1.0, 0.0, 1.0, NAN], [0.0, 0.0, NAN, NAN]])
    assert question_means(table)[:3].tolist() == [0.5, 0.0, 1.0]
    found = win_rate(table)
    assert found.value == pytest.approx(0.5)
    assert found.stderr == pytest.approx(np.std([0.5, 0, 1], ddof=1) / math.sqrt(3))
    assert found.num_questions == 3


def test_without_a_verdict_nothing_is_known() -> None:
    found = win_rate(np.full((2, 5), NAN))
    assert (found.value, found.stderr, found.detectable) == (None, None, None)
    assert length_controlled(np.full((1, 5), NAN), np.zeros((1, 5))).value is None


def test_eighty_questions_show_what_the_textbook_says() -> None:
    found = win_rate(np.array([[1.0, 0.0] * 40]))
    assert found.stderr == pytest.approx(0.5 * math.sqrt(80 / 79) / math.sqrt(80))
    assert found.stderr_at_half == pytest.approx(0.5 / math.sqrt(80))
    # 1.990 + 0.846 standard errors, by Student's t with 79 degrees of freedom
    assert found.detectable == pytest.approx(2.836 * 0.5 / math.sqrt(80), rel=1e-3)


def test_what_questions_can_show_does_not_depend_on_who_wins() -> None:
    clear = win_rate(np.array([[1.0] * 79 + [0.0]]))
    half = win_rate(np.array([[1.0, 0.0] * 40]))
    tied = win_rate(np.array([[1.0, 0.5] * 40]))
    assert clear.detectable == half.detectable
    assert tied.stderr_at_half == pytest.approx(np.std([1, 0, 0.5, 0.5] * 20) / math.sqrt(80))
    assert win_rate(np.full((1, 80), 0.5)).detectable is None


def drawn(num: int, *, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    d = rng.normal(50, 200, num)
    odds = intercept + slope * np.tanh(d / d.std())
    return (rng.random(num) < 1 / (1 + np.exp(-odds))).astype(float)[None], d[None]


def test_length_control_recovers_the_win_rate_at_equal_lengths() -> None:
    preferences, d = drawn(20_000, slope=1.5, intercept=-0.4)
    found = length_controlled(preferences, d)
    assert found.value == pytest.approx(1 / (1 + math.exp(0.4)), abs=0.015)
    assert found.coefficient == pytest.approx(1.5, abs=0.1)


def test_error_of_the_length_controlled_win_rate_is_that_of_a_jackknife() -> None:
    preferences, d = drawn(150, slope=1.0, intercept=0.3, seed=1)
    found = length_controlled(preferences, d)
    without = []
    for index in range(150):
        value = length_controlled(np.delete(preferences, index, 1), np.delete(d, index, 1)).value
        assert value is not None
        without.append(value)
    jackknife = math.sqrt(149 / 150 * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert found.stderr == pytest.approx(jackknife, rel=0.05)


def test_equal_lengths_leave_the_win_rate() -> None:
    preferences = np.array([[1.0, 0.0, 0.5, 1.0]])
    plain, found = win_rate(preferences), length_controlled(preferences, np.zeros((1, 4)))
    assert (found.value, found.stderr) == (plain.value, plain.stderr)


@pytest.mark.parametrize(
    ("preferences", "differences"),
    [
        ([1, 1, 1, 1, 1], [3, -1, 4, 2, -5]),  # all won
        ([1, 1, 0, 0, 1], [3, 2, -3, -4, 1]),  # the longer one always wins
        ([1, 0, 1, 0, 1], [7, 7, 7, 7, 7]),  # length never differs
    ],
)
def test_what_has_no_estimate_has_no_number(
    preferences: list[float], differences: list[float]
) -> None:
    found = length_controlled(np.array([preferences], float), np.array([differences], float))
    assert (found.value, found.stderr) == (None, None)
    assert found.why


def test_paired_difference_of_one_seed_is_over_questions() -> None:
    first, second = np.array([1.0, 1.0, 0.5, 0.0, NAN]), np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    found = win_rate_difference({None: first}, {0: second})
    assert found is not None
    differences = [1, 0, 0.5, 0]
    assert found.value == pytest.approx(np.mean(differences))
    assert found.stderr == pytest.approx(np.std(differences, ddof=1) / 2)
    assert (found.scope, found.num_items) == ("models", 4)


def test_paired_difference_of_several_seeds_speaks_of_methods() -> None:
    rng = np.random.default_rng(0)
    first = {seed: rng.integers(0, 2, 30).astype(float) for seed in (0, 1, 2)}
    second = {seed: rng.integers(0, 2, 30).astype(float) for seed in (1, 2, 3)}
    found = win_rate_difference(first, second)
    assert found is not None
    assert (found.scope, found.num_seeds) == ("methods", 2)
    expected = np.mean([first[seed] - second[seed] for seed in (1, 2)])
    assert found.value == pytest.approx(expected)


def test_no_common_question_has_no_difference() -> None:
    assert win_rate_difference({0: np.array([1.0, NAN])}, {0: np.array([NAN, 1.0])}) is None
