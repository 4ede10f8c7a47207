"""What a grid's scores cost: which costs are taken, of which rows, and by which intervals."""

from __future__ import annotations

import pytest

from harness.analysis.pareto import Front
from harness.analysis.tradeoffs import Tradeoff
from tests.fixtures.results import GridResults, answers_of

COSTS = {"lora": (4_000_000, 3600.0), "full": (7_000_000_000, 7200.0)}
PATTERNS = {"lora": "1110" * 10, "full": "1100" * 10}


@pytest.fixture
def grid(results: GridResults) -> GridResults:
    """Base, and two methods with two seeds; the dearer one is worse in every item that differs."""
    results.add("base", None, answers_of("1000" * 10))
    for method, (parameters, seconds) in COSTS.items():
        for seed in (0, 1):
            results.add(method, seed, answers_of(PATTERNS[method]))
            results.cells[-1] |= {
                "trainable_parameters": parameters,
                "seconds": seconds + 360 * seed,
                "num_devices": 4 if method == "full" else 1,
                "peak_memory_bytes": 2**30,
                "device": "cuda",
            }
    return results


def found_in(grid: GridResults, **fields: object) -> dict[str, Tradeoff]:
    return {one.column: one for one in grid.findings(**fields).tradeoffs}


def front(tradeoff: Tradeoff, key: str) -> Front:
    return next(one for one in tradeoff.fronts if one.axis.key == key)


def test_averages_and_what_is_tested_have_fronts_for_each_cost_that_differs(grid) -> None:
    found = found_in(grid)
    assert set(found) == {"ARC avg", "Average"}
    keys = [one.axis.key for one in found["Average"].fronts]
    # Memory is the same for all, and nothing is known of the operations.
    assert keys == ["trainable_parameters", "device_hours"]


def test_hours_are_those_of_all_devices_and_spread_over_the_seeds(grid) -> None:
    hours = front(found_in(grid)["Average"], "device_hours")
    assert hours.axis.title == "GPU hours"
    points = {point.label: point for point in hours.points}
    assert points["lora"].cost == pytest.approx(1.05)
    assert points["lora"].cost_range == pytest.approx((1.0, 1.1))
    assert points["full"].cost == pytest.approx(4 * 2.05)
    assert points["Base model"].cost == 0


def test_operations_are_those_that_are_given(grid) -> None:
    flops = {cell["cell_id"]: 1e15 * (1 + number) for number, cell in enumerate(grid.cells)}
    points = front(found_in(grid, training_flops=flops)["Average"], "training_flops").points
    assert {point.label: point.cost for point in points} == {
        "Base model": 0,
        "lora": 2.5e15,
        "full": 4.5e15,
    }


def test_the_paired_interval_says_what_is_dominated(grid) -> None:
    parameters = front(found_in(grid)["Average"], "trainable_parameters")
    places = {p.label: place for p, place in zip(parameters.points, parameters.places, strict=True)}
    assert places == {"Base model": "front", "lora": "front", "full": "dominated"}
    assert dict(zip(places, parameters.dominated_by, strict=True))["full"] == "lora"


def test_without_items_of_a_pair_nothing_is_dominated(grid) -> None:
    grid.items.clear()
    parameters = front(found_in(grid)["Average"], "trainable_parameters")
    assert "dominated" not in parameters.places


def test_hours_and_memory_of_two_kinds_of_device_are_no_one_cost(grid) -> None:
    grid.cells[-1] |= {"device": "cpu", "peak_memory_bytes": 2**33}
    keys = [one.axis.key for one in found_in(grid)["Average"].fronts]
    assert keys == ["trainable_parameters"]


def test_methods_of_one_size_have_no_front_of_it(results) -> None:
    results.add("base", None, answers_of("1000"))
    for method in ("lora", "full"):
        results.add(method, 0, answers_of("1100"))
    assert results.findings().tradeoffs == ()


def test_of_one_seed_of_which_no_spread_is_known_nothing_is_dominated(results) -> None:
    for method, (parameters, _) in COSTS.items():
        results.add(method, 0, answers_of(PATTERNS[method]))
        results.cells[-1]["trainable_parameters"] = parameters
    parameters = front(found_in(results)["Average"], "trainable_parameters")
    assert parameters.places == ("front", "not told apart")


def test_a_grid_that_tests_something_draws_that_alone(grid) -> None:
    drawn = {column: one.is_drawn for column, one in found_in(grid).items()}
    assert drawn == {"ARC avg": False, "Average": True}
