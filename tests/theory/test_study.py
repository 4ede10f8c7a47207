"""The rates that the study is about, within wide bands, and the same on one process and two."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UsageError
from harness.theory.scenarios import Scenario
from harness.theory.study import SIZES as SUITES
from harness.theory.study import Errors, Plan, half_decades, jobs_of, make_suite, measure, run_jobs
from harness.theory.summary import Study, summarise

SCENARIOS = [
    Scenario("fixed", gating, is_linear, extra)
    for gating, is_linear in (("zero-init", True), ("zero-init", False), ("joint", True))
    for extra in (0, 1)
] + [
    Scenario(family, gating, rate=0.25)
    for family in ("copy", "gate")
    for gating in ("joint", "zero-init")
]


SIZES = (1000, 10_000, 100_000, 1_000_000)


@pytest.fixture(scope="module")
def study() -> Study:
    plans = [Plan(scenario, SIZES, 24, 300) for scenario in SCENARIOS]
    found = [job() for job in jobs_of(plans, 11)]
    return summarise(found, size="test", seed=11)


def slope_of(study: Study, quantity: str, **properties) -> float:
    (row,) = study.find(quantity=quantity, **properties)
    return row.slope.value


@pytest.mark.parametrize(
    ("gating", "is_linear"), [("zero-init", True), ("zero-init", False), ("joint", True)]
)
def test_fixed_truths_have_the_theorems_rates(study, gating, is_linear) -> None:
    model = {"family": "fixed", "gating": gating, "is_linear": is_linear}
    for extra in (0, 1):
        for quantity in ("single", "voronoi", "function"):
            assert -0.60 < slope_of(study, quantity, extra_atoms=extra, **model) < -0.42
    assert -0.34 < slope_of(study, "over", extra_atoms=1, **model) < -0.19
    assert -0.62 < slope_of(study, "centre", extra_atoms=1, **model) < -0.38
    if gating == "zero-init":
        assert -0.62 < slope_of(study, "alpha", extra_atoms=0, **model) < -0.38


def test_joint_attention_fails_along_the_copies_and_zero_init_does_not(study) -> None:
    assert slope_of(study, "voronoi", family="copy", gating="joint") > -0.2
    assert slope_of(study, "voronoi", family="copy", gating="zero-init") < -0.4


def test_zero_init_is_slow_where_its_gate_falls(study) -> None:
    zero = slope_of(study, "prompt", family="gate", gating="zero-init")
    assert -0.36 < zero < -0.15
    assert slope_of(study, "prompt", family="gate", gating="joint") < zero - 0.05


def test_moving_truths_follow_the_bound(study) -> None:
    for row in study.rows:
        if row.predicted is not None and row.quantity in ("prompt", "voronoi"):
            assert row.slope.value == pytest.approx(row.predicted, abs=0.09)


def test_fits_converge_and_no_cell_is_empty(study) -> None:
    for effort in study.efforts:
        assert effort.converged > (0.85 if effort.scenario.extra_atoms else 0.99)
        assert effort.starts_at_best > (0.3 if effort.scenario.extra_atoms else 0.99)
        assert effort.empty_cells == 0


def test_continuous_inputs_give_errors_of_the_grids_size() -> None:
    plans = [
        Plan(Scenario(family, "joint"), (2000,), 12, 200) for family in ("fixed", "continuous")
    ]
    grid, continuous = (job().losses["single"].mean() for job in jobs_of(plans, 0))
    assert 0.5 < continuous / grid < 2


def test_a_study_survives_its_file(study) -> None:
    text = study.to_json()
    assert Study.from_json(text, place="theory.json") == study


SMALL_PLANS = [Plan(scenario, (1000, 3162), 4, 50) for scenario in SCENARIOS[:3]]


def test_processes_change_neither_results_nor_their_order() -> None:
    jobs = jobs_of(SMALL_PLANS, 0)
    here, there = (list(run_jobs(jobs, workers=workers)) for workers in (1, 2))
    assert len(here) == len(jobs)
    for first, second in zip(here, there, strict=True):
        assert isinstance(first, Errors)
        assert (first.scenario, first.n) == (second.scenario, second.n)
        assert (first.chi2 == second.chi2).all()
        for name, values in first.losses.items():
            assert np.array_equal(values, second.losses[name], equal_nan=True)


def test_another_seed_draws_other_data() -> None:
    first, second = (measure(SMALL_PLANS[0], 1000, seed) for seed in (0, 1))
    assert not (first.chi2 == second.chi2).any()


@pytest.mark.parametrize("size", SUITES)
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
