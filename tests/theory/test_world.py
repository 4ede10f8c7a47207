"""Truths that cannot be estimated are refused in one line, weak ones are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import UsageError
from harness.theory.scenarios import PAIR
from harness.theory.world import TRUTH, WORLD, Box, Truth, check_truth, copied_experts

NOTHING = np.zeros((0, 2))
FLAT = np.array([[1.0, 2.0], [0.5, 1.0]])
"""Of rank 1."""


def check(truth: Truth = TRUTH, world=WORLD, *, has_gate: bool = True, num_atoms: int = 3):
    return check_truth(world, truth, Box(), has_gate=has_gate, num_atoms=num_atoms)


def test_the_shipped_truth_has_no_weakness() -> None:
    assert check() == ()
    assert check(has_gate=False, num_atoms=5) == ()


@pytest.mark.parametrize(
    ("truth", "phrase"),
    [
        (Truth(NOTHING, np.zeros(0)), "L must be at least 1"),
        (replace(TRUTH, biases=np.zeros(2)), "3 prompts need 3 biases"),
        (replace(TRUTH, alpha=0.0), "alpha must not be 0"),
        (replace(TRUTH, prompts=TRUTH.prompts[[0, 1, 0]]), "prompts 0 and 2 are equal"),
        (replace(TRUTH, prompts=3 * TRUTH.prompts), "prompts of the truth lie outside the box"),
        (replace(TRUTH, alpha=2.5), "alpha of the truth lie outside the box"),
    ],
)
def test_a_truth_that_cannot_be_found_is_refused_in_one_line(truth, phrase) -> None:
    with pytest.raises(UsageError, match=phrase) as caught:
        check(truth)
    assert "\n" not in str(caught.value)


def test_fewer_fitted_prompts_than_true_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="L' must be at least L = 3"):
        check(num_atoms=2)


def test_a_direction_that_no_data_show_is_refused() -> None:
    with pytest.raises(UsageError, match="common null direction"):
        check(world=replace(WORLD, key=FLAT, value=FLAT))


@pytest.mark.parametrize(("part", "name"), [("key", "B"), ("value", "C")])
def test_a_rank_deficient_matrix_is_warned_about(part, name) -> None:
    (line,) = check(world=replace(WORLD, **{part: FLAT}))
    assert f"{name} is rank-deficient (1 of 2)" in line
    assert "\n" not in line


def test_few_prompts_behind_an_unknown_gate_are_warned_about() -> None:
    one = Truth(TRUTH.prompts[:1], TRUTH.biases[:1])
    (line,) = check(one, num_atoms=1)
    assert "only the product tanh(alpha) C p" in line
    (line,) = check(PAIR, num_atoms=2)
    assert "L = 2 with an unknown gate" in line
    assert check(PAIR, has_gate=False, num_atoms=2) == ()


def test_an_untried_number_of_extra_prompts_is_warned_about() -> None:
    (line,) = check(num_atoms=6)
    assert "L' = L + 3" in line


def test_without_a_gate_alpha_may_be_anything() -> None:
    assert check(replace(TRUTH, alpha=0.0), has_gate=False) == ()


def test_copied_experts_are_prompts() -> None:
    experts = copied_experts(WORLD, PAIR.prompts, PAIR.biases)
    x = np.array([0.3, -1.1])
    for k, prompt in enumerate(PAIR.prompts):
        score = experts.linear[k] @ x + experts.offset[k]
        assert score == pytest.approx((WORLD.key @ prompt) @ x + PAIR.biases[k], abs=1e-12)
        assert experts.shift[k] == pytest.approx(WORLD.value @ prompt, abs=1e-12)
