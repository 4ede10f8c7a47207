"""A small study, made once; and studies with slopes of one's choice."""

from __future__ import annotations

import pytest

from harness.theory.expectations import expectations
from harness.theory.scenarios import Scenario
from harness.theory.slopes import Slope
from harness.theory.study import Errors, run_task, tasks_of
from harness.theory.suites import Plan
from harness.theory.summary import Effort, Point, Row, Study, summarise

PLANS = [
    Plan(scenario, (1000, 10_000, 100_000), 6, 100)
    for gating in ("zero-init", "joint")
    for scenario in (
        Scenario("fixed", gating),
        Scenario("fixed", gating, extra_atoms=1),
        Scenario("copy", gating, rate=0.25),
        Scenario("gate", gating, rate=0.25),
    )
]


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> str:
    """Returns the URI of one MLflow store for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def small_errors() -> list[Errors]:
    return [run_task(task) for task in tasks_of(PLANS, 0)]


@pytest.fixture(scope="session")
def small_study(small_errors) -> Study:
    return summarise(small_errors, size="small", seed=0)


def study_of(slopes: dict[tuple[Scenario, str], tuple[float, float, float]]) -> Study:
    """Returns a study with these slopes: (value, low, high) by scenario and quantity."""
    rows = tuple(
        Row(
            scenario=scenario,
            quantity=quantity,
            points=(Point(1000, 0.1, 0.01, 5), Point(100_000, 0.01, 0.001, 5)),
            slope=Slope(*slope),
            late_slope=Slope(*slope),
            predicted=slope[0] if scenario.is_sequence else None,
            expected=expectations(scenario).get(quantity),
        )
        for (scenario, quantity), slope in slopes.items()
    )
    efforts = tuple(Effort(scenario, 1.0, 1.0, 0) for scenario, _ in slopes)
    return Study("small", 0, (1000, 100_000), 5, rows, efforts)
