"""The findings follow the intervals, whatever they are."""

from __future__ import annotations

import re

import pytest

from harness.theory.scenarios import Scenario
from harness.theory.slopes import Slope
from harness.theory.statements import cautions, exponent_text, number_text, slope_text, statements
from tests.fixtures.studies import study_of

ZERO, JOINT = Scenario("fixed", "zero-init"), Scenario("fixed", "joint")
HALF = (-0.5, -0.52, -0.48)


def test_numbers_are_printed_with_a_proper_minus() -> None:
    assert exponent_text(-0.25) == "−1/4"
    assert exponent_text(0.0) == "0"
    assert number_text(-0.0001) == "0.000"
    assert slope_text(Slope(-0.5, -0.52, 0.01)) == "−0.500 [−0.520, 0.010]"
    assert slope_text(None) == "–"


def test_an_interval_that_excludes_the_exponent_is_named() -> None:
    (text,) = statements(study_of({(ZERO, "single"): (-0.4, -0.44, -0.36)}))
    assert "expected −1/2, slope −0.400 [−0.440, −0.360]; 0 of 1 intervals hold" in text
    assert "flatter: zero-init, linear, fixed truth, L' = L" in text
    (text,) = statements(study_of({(ZERO, "single"): HALF}))
    assert "1 of 1 intervals hold the expected exponent" in text
    assert "flatter" not in text


def test_joint_attention_is_cleared_only_where_no_slope_of_it_lies_above() -> None:
    cleared = statements(study_of({(ZERO, "single"): HALF, (JOINT, "single"): HALF}))
    assert any("no ground to call the joint softmax slow" in line for line in cleared)
    slow = {(ZERO, "single"): HALF, (JOINT, "single"): (-0.3, -0.33, -0.27)}
    lines = statements(study_of(slow))
    assert not any("no ground" in line for line in lines)
    assert lines[-1].startswith("Fixed truth, L' = L, prompts, cells with one atom: joint softmax")
    assert "−0.300 [−0.330, −0.270], flatter than −1/2; zero-init, linear −0.500" in lines[-1]
    assert lines[-1].endswith("holds −1/2; the joint softmax is the slower one.")


STEEP, FLAT = (-0.03, -0.06, -0.01), (-0.3, -0.33, -0.27)


@pytest.mark.parametrize(
    ("joint", "zero", "phrases"),
    [
        ((0.0, -0.02, 0.02), HALF, ("0.020], holds 0; zero", "holds −1/2; the joint softmax is")),
        ((0.4, 0.3, 0.5), HALF, ("0.500], flatter than 0; zero", "holds −1/2; the joint softmax")),
        (STEEP, HALF, ("−0.010], steeper than 0; zero", "holds −1/2; the joint softmax is the")),
        (HALF, HALF, ("steeper than 0; zero", "holds −1/2; the intervals do not tell")),
        (HALF, FLAT, ("steeper than 0; zero", "flatter than −1/2; zero-init is the slower one")),
    ],
)
def test_the_copies_are_compared_by_their_intervals(joint, zero, phrases) -> None:
    slopes = {
        (Scenario("copy", "joint", rate=0.25), "voronoi"): joint,
        (Scenario("copy", "zero-init", rate=0.25), "voronoi"): zero,
    }
    line = statements(study_of(slopes))[-1]
    assert all(phrase in line for phrase in phrases), line
    assert line.startswith("Prompts drift to copies of pre-trained experts, a = 1/4, Voronoi loss")


@pytest.mark.parametrize(
    ("zero", "phrase"),
    [
        ((-0.25, -0.28, -0.22), "zero-init is the slower one"),
        ((-0.45, -0.47, -0.43), "the intervals do not tell the two apart"),
        ((-0.7, -0.72, -0.68), "the joint softmax is the slower one"),
    ],
)
def test_a_falling_gate_is_compared_by_its_intervals(zero, phrase) -> None:
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
    text = statements(study_of(slopes))[0]
    assert "Truths that move with n: expected −1/4, slopes −0.450 to −0.100" in text
    assert "0 of 2 intervals hold the expected exponent; flatter: zero-init, linear" in text
    assert "steeper: joint softmax, linear" in text
    assert "2 hold the slope that the Cramér–Rao bound gives" in text


def test_above_zero_init_is_not_slow_while_it_is_at_the_exponent() -> None:
    slopes = {(ZERO, "single"): (-0.56, -0.58, -0.54), (JOINT, "single"): HALF}
    line = statements(study_of(slopes))[-1]
    assert line.endswith("steeper than −1/2; no ground to call the joint softmax slow.")


def test_flatter_slopes_are_all_named_and_many_steeper_ones_counted() -> None:
    drawn = [Scenario("random", "zero-init", draw=draw) for draw in range(6)]
    values = [(-0.6, -0.62, -0.58)] * 5 + [(-0.4, -0.42, -0.38)]
    pairs = zip(drawn, values, strict=True)
    (line,) = statements(study_of({(scenario, "single"): value for scenario, value in pairs}))
    assert "0 of 6 intervals hold the expected exponent; flatter: zero-init, linear, drawn" in line
    assert "drawn truth 6" in line
    assert line.endswith("; 5 are steeper.")


SLOW = re.compile(r"\bslow\b|\bslower\b|hardly|fails?\b", re.I)
CONDITIONS = ("fixed truth", "copies", "falls to 0", "merge", "condition")


def test_joint_attention_is_called_slow_nowhere_without_the_condition(small_study) -> None:
    lines = [*statements(small_study), *cautions(small_study)]
    found = [line for line in lines if SLOW.search(line)]
    assert found
    for line in found:
        assert any(condition in line.lower() for condition in CONDITIONS), line


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
