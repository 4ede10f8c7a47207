"""Scores against what they cost: the figures of Pareto fronts, and their table.

`front_drawing` draws any points; the grid's own come from `harness.analysis.tradeoffs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import LOWER_IS_BETTER
from harness.analysis.pareto import Front, Place, Point
from harness.analysis.scales import Scale, scale_of
from harness.report.figures import GRID, INK, Drawing, Plot, Styles, legend_name
from harness.report.point_labels import Label, draw_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFINITION = (
    "On the front: no other is at most as costly and at least as good, one of both strictly. "
    "Dominated: another one is at most as costly (its dearest seed no dearer than this one's "
    "cheapest) and better beyond noise (the 95% interval of their difference excludes 0; each by "
    "itself, not corrected for their number; of one seed it must know other seeds' spread). Not "
    "told apart: off the front, and no such one is known."
)
MARKS = (
    "Vertical bars: 95% interval of the score, the spread over seeds pooled as in the comparisons "
    "(of one seed: that of new items alone); horizontal: the range of the "
    "cost. Stepped line: the front. A point without a name had no room for it: the table names all."
)
PLAIN = ("#777777", "o")
"""Colour and marker of a point of no known method."""
FILLS: dict[Place, str] = {
    "front": "on the front",
    "not told apart": "not told apart from it",
    "dominated": "dominated beyond noise",
}
MARKERS: dict[Place, dict[str, Any]] = {
    "front": {},
    "not told apart": {"alpha": 0.5},
    "dominated": {"markerfacecolor": "none"},
}
"""How points are drawn by their place: filled, faint or hollow."""


def front_drawing(
    name: str, title: str, caption: str, fronts: Sequence[Front], styles: Styles | None = None
) -> Drawing | None:
    """A panel for each front; None without any.

    Error bars are the 95% interval of the score and the range of the cost. A cost of 0 has no place
    on a log axis: such a point is a horizontal line.

    Args:
        name: of its files; it begins with the anchor of its section.
        title: above all panels.
        caption: what is shown; MARKS and DEFINITION belong to it once on a page.
        fronts: see `harness.analysis.pareto.front_of`.
        styles: colour and marker by `Point.style`; all others are grey.
    """
    if not fronts:
        return None
    panels = tuple(
        Plot(
            f"{front.score} against {within_text(front.axis.title)}",
            partial(_draw, front=front, styles=styles or {}),
            partial(_label, front=front),
        )
        for front in fronts
    )
    return Drawing(name, title, caption, panels)


def within_text(title: str) -> str:
    """An axis' title within a sentence: `GPU hours` keeps its letters."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def _draw(axes: Axes, *, front: Front, styles: Styles) -> None:
    scale = scale_of(front.unit)
    if front.axis.is_log:
        axes.set_xscale("log")
    for point, place in zip(front.points, front.places, strict=True):
        colour, marker = styles.get(point.style, PLAIN)
        if _has_place(point, front):
            for start, end in _bars(point, front, scale):
                ends = zip(start, end, strict=True)
                axes.plot(*ends, color=colour, linewidth=1.0, alpha=0.6, zorder=2)
            x, y = front.axis.factor * point.cost, scale.factor * point.value
            axes.plot([x], [y], marker, color=colour, markersize=7, zorder=3, **MARKERS[place])
            continue
        axes.axhline(scale.factor * point.value, color=INK, linestyle="--", linewidth=1.1)
        if point.interval is not None:
            low, high = (scale.factor * end for end in point.interval)
            axes.axhspan(low, high, color=INK, alpha=0.06, linewidth=0)
    if corners := _stairs(front, scale):
        axes.plot(*zip(*corners, strict=True), color=GRID, linewidth=1.2, zorder=1)
    _legend(axes, front)
    axes.margins(x=0.16, y=0.1)
    if front.axis.is_log:
        _set_ticks(axes)
    lower = f" ({LOWER_IS_BETTER} lower is better)" if front.lower_is_better else ""
    shares = "%" if front.unit is None else front.unit
    axes.set_ylabel(f"{front.score} ({shares}){lower}")
    axes.set_xlabel(front.axis.title + " (log scale)" * front.axis.is_log)


def _set_ticks(axes: Axes) -> None:
    """Few ticks with plain numbers, where the axis spans less than a power of ten."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    if high / low >= 10:
        return
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _has_place(point: Point, front: Front) -> bool:
    return point.cost > 0 or not front.axis.is_log


def _bars(
    point: Point, front: Front, scale: Scale
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Ends of a point's error bars, in the numbers that are printed."""
    x, y = front.axis.factor * point.cost, scale.factor * point.value
    found = []
    if point.interval is not None:
        low, high = (scale.factor * end for end in point.interval)
        found.append(((x, low), (x, high)))
    if point.cost_range is not None and point.cost_range[0] < point.cost_range[1]:
        low, high = (front.axis.factor * end for end in point.cost_range)
        found.append(((low, y), (high, y)))
    return found


def _stairs(front: Front, scale: Scale) -> list[tuple[float, float]]:
    """The corners of the front: the best score that a budget buys."""
    on = [
        (front.axis.factor * point.cost, scale.factor * point.value)
        for point, place in zip(front.points, front.places, strict=True)
        if place == "front" and _has_place(point, front)
    ]
    on.sort()
    corners = on[:1]
    for x, y in on[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _legend(axes: Axes, front: Front) -> None:
    """Entries of the legend: what filled, faint and hollow marks say, and the horizontal line."""
    for place, name in FILLS.items():
        if place in front.places:
            axes.plot([], [], "o", color=INK, label=name, **MARKERS[place])
    for point in front.points:
        if not _has_place(point, front):
            axes.plot([], [], "--", color=INK, linewidth=1.1, label=legend_name(point.label))


def _label(axes: Axes, *, front: Front) -> None:
    scale = scale_of(front.unit)
    shown = [
        (point, 0 if place == "front" else 1)
        for point, place in zip(front.points, front.places, strict=True)
        if _has_place(point, front)
    ]
    labels = [
        Label(point.label, front.axis.factor * point.cost, scale.factor * point.value, rank)
        for point, rank in shown
    ]
    corners = _stairs(front, scale)
    lines = [bar for point, _ in shown for bar in _bars(point, front, scale)]
    ends = axes.get_xlim()
    levels = [scale.factor * p.value for p in front.points if not _has_place(p, front)]
    lines += [((ends[0], level), (ends[1], level)) for level in levels]
    draw_labels(axes, labels, [*lines, *pairwise(corners)])
