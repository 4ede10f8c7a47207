"""Names beside points: none touches another, covers a point or leaves its room."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from harness.report.point_labels import MARKER, Box, distance, place_labels

ROOM = Box(0, 0, 300, 200)


def drawn(seed: int, number: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    generator = random.Random(seed)
    points = [(generator.uniform(5, 295), generator.uniform(5, 195)) for _ in range(number)]
    sizes = [(generator.uniform(15, 70), 9.0) for _ in range(number)]
    return sizes, points


@pytest.mark.parametrize("number", [1, 5, 20, 60])
@pytest.mark.parametrize("seed", range(4))
def test_no_label_touches_another_or_covers_a_point_or_leaves_its_room(
    seed: int, number: int
) -> None:
    sizes, points = drawn(seed, number)
    boxes = [box for box in place_labels(sizes, points, ROOM) if box is not None]
    assert boxes
    assert not any(one.touches(other) for one, other in combinations(boxes, 2))
    assert all(box.within(ROOM) for box in boxes)
    assert min(distance(box, point) for box in boxes for point in points) >= MARKER * 0.5


def test_points_without_names_are_not_covered_either() -> None:
    sizes, points = drawn(2, 30)
    boxes = place_labels(sizes[:5], points[:5], ROOM, others=points[5:])
    assert None not in boxes
    assert all(distance(box, point) >= MARKER * 0.5 for box in boxes if box for point in points)


def test_few_points_all_have_their_names() -> None:
    sizes, points = drawn(1, 6)
    assert None not in place_labels(sizes, points, ROOM)


def test_of_points_at_one_place_those_of_the_lowest_rank_are_named() -> None:
    number = 60
    ranks = [1] * (number - 1) + [0]
    boxes = place_labels([(80.0, 9.0)] * number, [(150.0, 100.0)] * number, ROOM, ranks=ranks)
    assert None in boxes
    assert boxes[-1] is not None


def test_a_label_does_not_cross_a_line_where_it_need_not() -> None:
    bars = [Box(100, 99.5, 300, 100.5), Box(100, 100, 300, 112)]
    (box,) = place_labels([(40.0, 9.0)], [(150.0, 100.0)], ROOM, bars=bars)
    assert box is not None
    assert not any(box.touches(bar) for bar in bars)


def test_a_label_that_is_wider_than_its_room_has_no_place() -> None:
    assert place_labels([(400.0, 9.0)], [(150.0, 100.0)], ROOM) == [None]
