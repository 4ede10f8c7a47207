"""The Cramér-Rao bound: linear in n, met by the fits, with the derived exponents near the limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.theory import prediction
from harness.theory.prediction import fisher_information, predict_errors
from harness.theory.scenarios import Scenario
from harness.theory.study import Plan, measure


def test_information_grows_as_n_at_a_fixed_truth() -> None:
    for gating in ("zero-init", "joint"):
        few, many = (fisher_information(Scenario("fixed", gating), n) for n in (100, 10_000))
        assert many == pytest.approx(100 * few)


@pytest.mark.parametrize("scenario", [
    Scenario("copy", "zero-init", rate=0.25),
    Scenario("copy", "joint", rate=0.125),
    Scenario("gate", "zero-init", rate=0.25),
])  # fmt: skip
def test_fits_reach_the_bound(scenario) -> None:
    n = 100_000
    measured = measure(Plan(scenario, (n,), 60, 300), n, 0).losses["prompt"].mean()
    bound = predict_errors(scenario, n, np.random.default_rng(0))["prompt"].mean()
    assert measured == pytest.approx(bound, rel=0.2)


@pytest.mark.parametrize(("gating", "power"), [("joint", -2), ("zero-init", 0)])
def test_masses_of_copies_are_lost_as_the_square_of_the_distance_in_joint_attention(
    gating, power
) -> None:
    """Over n the sequence shrinks: at a = 1/4 the root of n times the error is delta^power."""
    scenario = Scenario("copy", gating, rate=0.25)
    sizes = (10**8, 10**10)
    errors = []
    for n in sizes:
        covariance = np.linalg.inv(fisher_information(scenario, n))
        errors.append(np.sqrt(n * covariance[4, 4]))  # of the first bias
    shrunk = (sizes[1] / sizes[0]) ** -0.25
    assert errors[1] / errors[0] == pytest.approx(shrunk**power, rel=0.05)


def test_draws_stay_in_the_box(monkeypatch) -> None:
    monkeypatch.setattr(prediction, "NUM_DRAWS", 50)
    scenario = replace(Scenario("copy", "joint"), rate=0.25)
    found = predict_errors(scenario, 100, np.random.default_rng(0))
    assert len(found["prompt"]) == 50
    # The box has |p| <= 2.5 per coordinate: no distance can exceed its diagonal.
    assert found["prompt"].max() <= 5 * 2**0.5
