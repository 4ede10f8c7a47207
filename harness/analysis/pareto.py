"""Pareto fronts of a score against a cost, with what noise leaves open.

A point is on the front where no other is at most as costly and at least as good, one of both
strictly. That is said of the measured values, and noise moves it: so a point off the front is
called dominated only where some other point is at most as costly and better beyond noise (the 95%
interval of their difference excludes 0). Where a cost differs between seeds, at most as costly then
means that its dearest seed costs no more than the cheapest of the point's. Else it is not told
apart from the front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Place = Literal["front", "not told apart", "dominated"]

Better = Callable[[int, int], bool | None]
"""Whether the first of two points, by their numbers, is better than the second beyond noise; None
where that is not known."""


@dataclass(frozen=True)
class Point:
    """A model at its cost."""

    label: str
    cost: float
    """In the unit of its axis; 0 where nothing was spent, as of the untrained model."""
    value: float
    """Its score; 0..1 of shares."""
    interval: tuple[float, float] | None = None
    """95% interval of the score."""
    cost_range: tuple[float, float] | None = None
    """The lowest and the highest cost of its seeds; of a cost that is an estimate its interval."""
    style: str = ""
    """What its colour and marker are chosen by: a method's label in the grid."""


@dataclass(frozen=True)
class Axis:
    """A cost."""

    key: str
    """Name in a CSV."""
    title: str
    """With its unit, as printed."""
    factor: float = 1.0
    """What a cost is multiplied by when printed."""
    is_log: bool = True


@dataclass(frozen=True)
class Front:
    """Points in one score and one cost."""

    score: str
    """Name of the score: a column's."""
    axis: Axis
    points: tuple[Point, ...]
    places: tuple[Place, ...]
    """Of the points, in order."""
    dominated_by: tuple[str | None, ...]
    """Of each dominated point the cheapest one that dominates it."""
    unit: str | None = None
    """What the score counts; None of shares."""
    lower_is_better: bool = False


def front_of(
    points: Sequence[Point],
    axis: Axis,
    score: str,
    *,
    unit: str | None = None,
    lower_is_better: bool = False,
    is_better: Better | None = None,
) -> Front | None:
    """The front of points; None where fewer than two have a cost, or all have the same.

    On a log axis those that cost nothing do not count for that.

    Args:
        points: those whose cost or score is no number are left out.
        axis: what the cost is.
        score: the name of the score.
        unit: what the score counts; None of shares.
        lower_is_better: of the score. A lower cost is always better.
        is_better: by the numbers of `points`; by default see `unpaired`.
    """
    known = [n for n, one in enumerate(points) if _is_finite(one)]
    if len({points[n].cost for n in known if points[n].cost > 0 or not axis.is_log}) < 2:
        return None
    better = is_better or unpaired(points, lower_is_better=lower_is_better)
    sign = -1.0 if lower_is_better else 1.0
    places: list[Place] = []
    dominated_by: list[str | None] = []
    for n in known:
        no_dearer = [m for m in known if m != n and points[m].cost <= points[n].cost]
        beaten = any(_is_above(points[m], points[n], sign) for m in no_dearer)
        told = [
            m
            for m in no_dearer
            if sign * (points[m].value - points[n].value) > 0 and _ends_below(points[m], points[n])
        ]
        by = min((m for m in told if better(m, n)), key=lambda m: (points[m].cost, m), default=None)
        places.append("front" if not beaten else "not told apart" if by is None else "dominated")
        dominated_by.append(None if by is None else points[by].label)
    return Front(
        score=score,
        axis=axis,
        points=tuple(points[n] for n in known),
        places=tuple(places),
        dominated_by=tuple(dominated_by),
        unit=unit,
        lower_is_better=lower_is_better,
    )


def _is_finite(point: Point) -> bool:
    return math.isfinite(point.cost) and math.isfinite(point.value)


def _is_above(other: Point, point: Point, sign: float) -> bool:
    """Whether another point, which costs no more, stands in a point's way to the front."""
    gain = sign * (other.value - point.value)
    return gain > 0 or (gain == 0 and other.cost < point.cost)


def _ends_below(other: Point, point: Point) -> bool:
    """Whether another's dearest seed costs no more than the cheapest of a point's."""
    highest = other.cost if other.cost_range is None else other.cost_range[1]
    lowest = point.cost if point.cost_range is None else point.cost_range[0]
    return highest <= lowest


def unpaired(points: Sequence[Point], *, lower_is_better: bool = False) -> Better:
    """Whether points differ by their own intervals, taken as independent.

    The half width of a difference is the root of the sum of the squared half widths. Where the two
    were measured on the same items this is wider than a paired interval.
    """
    sign = -1.0 if lower_is_better else 1.0

    def is_better(first: int, second: int) -> bool | None:
        one, other = points[first], points[second]
        if one.interval is None or other.interval is None:
            return None
        halves = [(high - low) / 2 for low, high in (one.interval, other.interval)]
        return sign * (one.value - other.value) > math.hypot(*halves)

    return is_better
