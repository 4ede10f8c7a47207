"""What is said follows the intervals, whatever they are."""

from __future__ import annotations

import re

import pytest

from harness.theory.scenarios import Scenario
from harness.theory.slopes import Slope
from harness.theory.statements import (
    cautions,
    exponent_text,
    number_text,
    slope_text,
    statements,
    verdict,
)
from tests.fixtures.studies import study_of

ZERO, JOINT = Scenario("fixed", "zero-init"), Scenario("fixed", "joint")
HALF = (-0.5, -0.52, -0.48)


def test_numbers_are_printed_with_a_proper_minus() -> None:
    assert exponent_text(-0.25) == "−1/4"
    assert exponent_text(0.0) == "0"
    assert number_text(-0.0001) == "0.000"
    assert slope_text(Slope(-0.5, -0.52, 0.01)) == "−0.500 [−0.520, 0.010]"
    assert slope_text(None) == "–"


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        (Slope(-0.5, -0.52, -0.48), "holds it"),
        (Slope(-0.55, -0.57, -0.51), "steeper"),
        (Slope(-0.4, -0.45, -0.35), "flatter"),
        (None, "–"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(slope, expected) -> None:
    assert verdict(slope, -0.5) == expected


def test_an_interval_that_excludes_the_exponent_is_named() -> None:
    text = " ".join(statements(study_of({(ZERO, "single"): (-0.4, -0.44, -0.36)})))
    assert "its interval does not hold the expected exponent" in text
    assert "Flatter than −1/2: zero-init, linear, fixed truth, L' = L" in text
    text = " ".join(statements(study_of({(ZERO, "single"): HALF})))
    assert "its interval holds the expected exponent" in text
    assert "latter than" not in text


def test_joint_attention_is_cleared_only_where_no_slope_of_it_lies_above() -> None:
    cleared = statements(study_of({(ZERO, "single"): HALF, (JOINT, "single"): HALF}))
    assert any("gives no ground to call the joint softmax slow" in line for line in cleared)
    slow = {(ZERO, "single"): HALF, (JOINT, "single"): (-0.3, -0.33, -0.27)}
    lines = statements(study_of(slow))
    assert not any("no ground" in line for line in lines)
    assert any("it is slower than zero-init here" in line and "−0.300" in line for line in lines)


@pytest.mark.parametrize(
    ("joint", "zero", "phrases"),
    [
        ((-0.03, -0.06, 0.0), HALF, ("converges hardly, if at all", "zero-init keeps −1/2")),
        ((0.4, 0.3, 0.5), HALF, ("the joint softmax does not converge", "keeps −1/2")),
        ((-0.3, -0.33, -0.27), HALF, ("is slower than zero-init", "zero-init keeps −1/2")),
        (HALF, HALF, ("is not seen to be slower", "zero-init keeps −1/2")),
        (HALF, (-0.3, -0.33, -0.27), ("is not seen to be slower", "is flatter than −1/2")),
    ],
)
def test_the_copies_are_told_as_they_went(joint, zero, phrases) -> None:
    slopes = {
        (Scenario("copy", "joint", rate=0.25), "voronoi"): joint,
        (Scenario("copy", "zero-init", rate=0.25), "voronoi"): zero,
    }
    text = " ".join(statements(study_of(slopes)))
    assert all(phrase in text for phrase in phrases)
    assert "prompts drift to copies of the pre-trained words" in text


@pytest.mark.parametrize(
    ("zero", "phrase"),
    [
        ((-0.25, -0.28, -0.22), "zero-init is the slower one"),
        ((-0.45, -0.47, -0.43), "the intervals do not tell the two apart"),
        ((-0.7, -0.72, -0.68), "the joint softmax is the slower one"),
    ],
)
def test_the_corners_are_told_as_they_went(zero, phrase) -> None:
    slopes = {
        (Scenario("gate", "joint", rate=0.25), "prompt"): (-0.45, -0.48, -0.42),
        (Scenario("gate", "zero-init", rate=0.25), "prompt"): zero,
    }
    assert any(phrase in line for line in statements(study_of(slopes)))


def test_moving_truths_are_counted_and_flatter_ones_named() -> None:
    slopes = {
        (Scenario("gate", "joint", rate=0.25), "prompt"): (-0.45, -0.48, -0.42),
        (Scenario("gate", "zero-init", rate=0.25), "prompt"): (-0.1, -0.12, -0.08),
    }
    text = statements(study_of(slopes))[-1]
    assert "of 2 intervals 0 hold the limit's exponent, 1 are steeper and 1 flatter (zero-" in text


def test_above_zero_init_is_not_slow_while_it_is_at_the_exponent() -> None:
    slopes = {(ZERO, "single"): (-0.56, -0.58, -0.54), (JOINT, "single"): HALF}
    (line,) = [line for line in statements(study_of(slopes)) if "lie above" in line]
    assert "no slope of its prompts is flatter than expected" in line
    assert "gives no ground to call the joint softmax slow" in line


def test_flatter_slopes_are_all_named_and_many_steeper_ones_counted() -> None:
    drawn = [Scenario("random", "zero-init", draw=draw) for draw in range(6)]
    values = [(-0.6, -0.62, -0.58)] * 5 + [(-0.4, -0.42, -0.38)]
    pairs = zip(drawn, values, strict=True)
    (line,) = statements(study_of({(scenario, "single"): value for scenario, value in pairs}))
    assert "0 of 6 intervals hold the expected exponent. 5 are steeper" in line
    assert line.count("teeper than") == 0
    assert "Flatter than −1/2: zero-init, linear, drawn truth 6" in line


SLOW = re.compile(r"\bslow\b|\bslower\b|hardly|fails?\b", re.I)
CONDITIONS = ("fixed truth", "copies", "such a truth", "goes to 0", "merge", "condition")


def test_joint_attention_is_called_slow_nowhere_without_the_condition(small_study) -> None:
    said = [*statements(small_study), *cautions(small_study)]
    found = [line for line in said if SLOW.search(line)]
    assert found
    for line in found:
        assert any(condition in line for condition in CONDITIONS), line


def test_cautions_tell_what_is_not_claimed(small_study) -> None:
    text = " ".join(cautions(small_study))
    for phrase in (
        "no figure of the paper",
        "upper bounds",
        "1 / log^tau(n)",
        "ours, not the paper's proof",
        "Separate prompts for key and value",
        "miss by chance",
    ):
        assert phrase in text
