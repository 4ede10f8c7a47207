"""The settings: what moves with n, and that each can be estimated."""

from __future__ import annotations

import numpy as np
import pytest

from harness.theory.scenarios import PAIR, Scenario, draw_truth
from harness.theory.world import WORLD


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
