"""The settings: what moves with n, and that each can be estimated."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UsageError
from harness.theory.scenarios import PAIR, Scenario, draw_truth
from harness.theory.suites import SIZES, half_decades, make_suite
from harness.theory.world import WORLD


@pytest.mark.parametrize("size", SIZES)
def test_every_setting_of_a_suite_can_be_estimated_at_every_n(size) -> None:
    plans = make_suite(size)
    names = [plan.scenario.name for plan in plans]
    assert len(set(names)) == len(names)
    for plan in plans:
        for n in plan.sizes:
            problem = plan.scenario.problem(n)
            assert problem.model.num_atoms == len(problem.truth.prompts) + plan.scenario.extra_atoms


def test_an_unknown_size_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'qick'; did you mean 'quick'"):
        make_suite("qick")


def test_sizes_are_half_decades() -> None:
    assert half_decades(2, 3.5) == (100, 316, 1000, 3162)


def test_prompts_approach_their_copies_and_nothing_else_moves() -> None:
    scenario = Scenario("copy", "joint", rate=0.25)
    gaps = []
    for n in (100, 10_000, 1_000_000):
        problem = scenario.problem(n)
        gaps.append(np.linalg.norm(problem.truth.prompts[0] - PAIR.prompts[0]))
        assert (problem.truth.biases == PAIR.biases).all()
        assert (problem.world.pretrained.shift == PAIR.prompts @ WORLD.value.T).all()
    assert gaps == pytest.approx([0.6, 0.6 / 10**0.5, 0.06])


def test_both_models_meet_the_same_copies() -> None:
    joint, zero = (Scenario("copy", g, rate=0.125).problem(5000) for g in ("joint", "zero-init"))
    assert (joint.truth.prompts == zero.truth.prompts).all()
    assert (joint.world.pretrained.linear == zero.world.pretrained.linear).all()


def test_the_gate_falls_in_zero_init_and_the_mass_in_joint() -> None:
    zero = Scenario("gate", "zero-init", rate=0.25).problem(10_000)
    assert np.tanh(zero.truth.alpha) == pytest.approx(0.66 * 100**-0.25)
    joint = Scenario("gate", "joint", rate=0.25).problem(10_000)
    mass = np.exp(joint.truth.biases).sum() / np.exp(PAIR.biases).sum()
    assert mass == pytest.approx(100**-0.25)


def test_merging_prompts_merge() -> None:
    prompts = Scenario("merge", "joint", rate=0.125).problem(1_000_000).truth.prompts
    assert np.linalg.norm(prompts[0] - prompts[1]) == pytest.approx(0.8 * 10_000**-0.125)


def test_drawn_truths_differ_and_are_the_same_each_time() -> None:
    first, again, second = draw_truth(0), draw_truth(0), draw_truth(1)
    assert (first[1].prompts == again[1].prompts).all()
    assert (first[0].key == again[0].key).all()
    assert not (first[1].prompts == second[1].prompts).any()
