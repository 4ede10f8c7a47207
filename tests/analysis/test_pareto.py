"""Pareto fronts: laws of the front, and what noise leaves open."""

from __future__ import annotations

import math
import random

import pytest

from harness.analysis.pareto import Axis, Point, front_of, unpaired

COST = Axis("trainable_parameters", "Trained parameters")


def drawn(seed: int, number: int = 12) -> list[Point]:
    """Points with ties in cost and in score."""
    generator = random.Random(seed)
    points = []
    for name in range(number):
        cost, value = 10.0 ** generator.randint(0, 5), generator.randint(0, 20) / 20
        half = generator.choice([0.01, 0.1, 0.3])
        points.append(Point(f"p{name}", cost, value, (value - half, value + half)))
    return points


def on_front(points: list[Point]) -> set[str]:
    """The definition, written once more: no other one is as good in both and better in one."""
    return {
        p.label
        for p in points
        if not any(
            q.cost <= p.cost and q.value >= p.value and (q.cost < p.cost or q.value > p.value)
            for q in points
        )
    }


def places_of(points: list[Point], **settings: object) -> dict[str, str]:
    found = front_of(points, COST, "Average", **settings)
    assert found is not None
    return dict(zip((p.label for p in found.points), found.places, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_the_definitions(seed: int) -> None:
    points = drawn(seed)
    places = places_of(points)
    assert {name for name, place in places.items() if place == "front"} == on_front(points)


@pytest.mark.parametrize("transform", [math.log10, math.sqrt, lambda cost: 3 * cost + 1])
@pytest.mark.parametrize("seed", range(5))
def test_a_monotone_change_of_the_cost_changes_no_place(seed: int, transform) -> None:
    points = drawn(seed)
    moved = [Point(p.label, transform(p.cost), p.value, p.interval) for p in points]
    assert places_of(moved) == places_of(points)


@pytest.mark.parametrize("seed", range(20))
def test_a_dominated_point_has_one_that_costs_no_more_and_is_better_beyond_noise(seed: int) -> None:
    points = drawn(seed)
    found = front_of(points, COST, "Average")
    by_label, better = {p.label: p for p in points}, unpaired(points)
    for point, place, by in zip(found.points, found.places, found.dominated_by, strict=True):
        assert (place == "dominated") == (by is not None)
        if by is not None:
            assert by_label[by].cost <= point.cost
            assert better(points.index(by_label[by]), points.index(point))


def test_the_order_of_points_changes_no_place() -> None:
    points = drawn(3)
    assert places_of(points[::-1]) == places_of(points)


def test_a_score_of_which_less_is_better_is_the_mirrored_one() -> None:
    points = drawn(7)
    mirrored = [Point(p.label, p.cost, -p.value, (-p.interval[1], -p.interval[0])) for p in points]
    assert places_of(mirrored, lower_is_better=True) == places_of(points)


def test_without_knowledge_of_noise_nothing_is_dominated() -> None:
    points = [Point("cheap", 1, 0.9), Point("dear", 2, 0.1)]
    assert places_of(points) == {"cheap": "front", "dear": "not told apart"}


def test_what_pairs_say_goes_before_the_points_own_intervals() -> None:
    points = [Point("cheap", 1, 0.52, (0.4, 0.64)), Point("dear", 2, 0.5, (0.38, 0.62))]
    assert places_of(points)["dear"] == "not told apart"
    assert places_of(points, is_better=lambda _a, _b: True)["dear"] == "dominated"


def test_costs_of_seeds_that_overlap_dominate_nothing() -> None:
    cheap = Point("cheap", 1.0, 0.9, (0.89, 0.91), (0.8, 1.3))
    dear = Point("dear", 1.2, 0.1, (0.09, 0.11), (1.1, 1.4))
    assert places_of([cheap, dear])["dear"] == "not told apart"
    dearer = Point("dear", 1.4, 0.1, (0.09, 0.11), (1.3, 1.5))
    assert places_of([cheap, dearer])["dear"] == "dominated"


def test_an_unpaired_difference_has_the_root_of_the_summed_squares() -> None:
    # Half widths 3 and 4 points: the difference has 5.
    points = [Point("a", 1, 0.60, (0.57, 0.63)), Point("b", 1, 0.5501, (0.5101, 0.5901))]
    assert unpaired(points)(0, 1) is False
    lower = [points[0], Point("b", 1, 0.5499, (0.5099, 0.5899))]
    assert unpaired(lower)(0, 1) is True
    assert unpaired(lower)(1, 0) is False


@pytest.mark.parametrize(
    "costs",
    [
        (),
        (1.0,),
        (5.0, 5.0),
        (0.0, 5.0, 5.0),
        (5.0, math.nan),
        (math.nan, math.nan),
        (5.0, math.inf),
    ],
)
def test_a_cost_of_one_value_or_none_has_no_front(costs: tuple[float, ...]) -> None:
    points = [Point(str(n), cost, 0.5) for n, cost in enumerate(costs)]
    assert front_of(points, COST, "Average") is None


def test_what_costs_nothing_is_a_point_of_a_linear_axis() -> None:
    points = [Point("base", 0.0, 0.5), Point("trained", 0.1, 0.6)]
    assert front_of(points, COST, "Average") is None
    assert front_of(points, Axis("forgetting", "Forgetting", is_log=False), "Average") is not None


def test_a_point_whose_score_is_no_number_is_left_out() -> None:
    points = [Point("a", 1, 0.5), Point("b", 2, math.nan), Point("c", 3, 0.6)]
    assert set(places_of(points)) == {"a", "c"}
