"""Names beside the points of a figure: no two of them touch, and none covers a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report.figures import GRID, INK, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 8.0
MARKER = 4.5
"""Half the size of a point's mark, in points of print."""
REACHES = (7.0, 13.0, 21.0, 31.0, 43.0)
"""How far from its point a label may stand, in points of print; behind the second a line joins
them."""
DIRECTIONS = ((1, 0.55), (-1, 0.55), (1, -0.55), (-1, -0.55), (0, 1), (0, -1), (1, 0), (-1, 0))
CROSSED, AMBIGUOUS = 30.0, 20.0
"""What a crossed error bar counts, and each other point that is nearer to a label than its own, in
points of print of distance."""


Pair = tuple[float, float]
Line = tuple[Pair, Pair]
"""Its two ends."""


@dataclass(frozen=True)
class Label:
    """A name that is to stand beside a place in data coordinates."""

    text: str
    """Empty of a point that has none, and is not covered either."""
    x: float
    y: float
    rank: int = 0
    """Of several that have no room together the lower ones are written."""


@dataclass(frozen=True)
class Box:
    """A rectangle in points of print."""

    left: float
    bottom: float
    right: float
    top: float

    def touches(self, other: Box) -> bool:
        """Whether the two share any place."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)

    def within(self, other: Box) -> bool:
        """Whether it lies in the other."""
        sides = self.left >= other.left and self.right <= other.right
        return sides and self.bottom >= other.bottom and self.top <= other.top


def place_labels(
    sizes: Sequence[Pair],
    points: Sequence[Pair],
    room: Box,
    *,
    others: Sequence[Pair] = (),
    bars: Sequence[Box] = (),
    ranks: Sequence[int] | None = None,
) -> list[Box | None]:
    """Where labels stand, in points of print; None of one that finds no room.

    No label leaves the room, touches another or covers a point; of the places left the nearest is
    taken, with those last that cross a line or lie nearer to another point. Labels of a lower rank
    choose first; within a rank several orders are tried, and that is taken which leaves the fewest
    without a place, and the others nearest.

    Args:
        sizes: width and height of each label.
        points: the place of each.
        room: what no label leaves.
        others: points without a label.
        bars: error bars and lines.
        ranks: of the labels; all alike where absent.
    """
    numbers, ranked = range(len(sizes)), ranks or [0] * len(sizes)
    best: tuple[int, float] | None = None
    boxes: list[Box | None] = []
    for key in (lambda n: n, lambda n: points[n][1], lambda n: -points[n][1], lambda n: -n):
        order = sorted(numbers, key=lambda n, key=key: (ranked[n], key(n)))  # type: ignore[misc]
        placed, cost = _placed_in(order, sizes, [*points, *others], room, bars)
        found = len(sizes) - len(placed), cost
        if best is None or found < best:
            best, boxes = found, [placed.get(n) for n in numbers]
    return boxes


def _placed_in(
    order: Sequence[int],
    sizes: Sequence[Pair],
    points: Sequence[Pair],
    room: Box,
    bars: Sequence[Box],
) -> tuple[dict[int, Box], float]:
    """Places of the labels that find one, by number, when they choose in an order; and what the
    places cost."""
    marks = [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in points]
    placed: dict[int, Box] = {}
    total = 0.0
    for number in order:
        taken, point = [*marks, *placed.values()], points[number]
        free = [
            (
                reach
                + CROSSED * sum(box.touches(bar) for bar in bars)
                + AMBIGUOUS * _nearer(box, point, points),
                place,
                box,
            )
            for place, (reach, box) in enumerate(_candidates(sizes[number], point))
            if box.within(room) and not any(box.touches(other) for other in taken)
        ]
        if free:
            cost, _, placed[number] = min(free, key=lambda one: one[:2])
            total += cost
    return placed, total


def _nearer(box: Box, point: Pair, points: Sequence[Pair]) -> int:
    """How many other points are as near to a label as its own."""
    own = distance(box, point)
    return sum(distance(box, other) <= own for other in points) - 1


def _candidates(size: Pair, point: Pair) -> Iterator[tuple[float, Box]]:
    """Yields places around a point, each with its distance."""
    (width, height), (x, y) = size, point
    for reach in REACHES:
        for across, up in DIRECTIONS:
            left = x + across * reach - width * (1 - across) / 2
            bottom = y + up * reach - height * (1 - up) / 2
            yield reach, Box(left, bottom, left + width, bottom + height)


def draw_labels(axes: Axes, labels: Sequence[Label], lines: Sequence[Line] = ()) -> None:
    """Writes labels beside their points, once the axes have their final place and limits.

    `lines`, horizontal or vertical ones in data coordinates, are not crossed where that can be.
    """
    figure = axes.figure
    per_point = figure.dpi / 72
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg's own

    def place(x: float, y: float) -> Pair:
        across, up = axes.transData.transform((x, y)) / per_point
        return float(across), float(up)

    points = [place(label.x, label.y) for label in labels if label.text]
    others = [place(label.x, label.y) for label in labels if not label.text]
    labels = [label for label in labels if label.text]
    texts = [shown(label.text).replace("$", r"\$") for label in labels]
    sizes = []
    for text in texts:
        drawn = axes.text(0, 0, text, fontsize=FONT_SIZE)
        extent = drawn.get_window_extent(renderer)
        sizes.append((extent.width / per_point + 2, extent.height / per_point + 1))
        drawn.remove()
    bars = [_bar(place(*start), place(*end)) for start, end in lines]
    frame = axes.get_window_extent(renderer)
    room = Box(*(float(end) / per_point for end in frame.extents))
    ranks = [label.rank for label in labels]
    boxes = place_labels(sizes, points, room, others=others, bars=bars, ranks=ranks)
    for text, point, box in zip(texts, points, boxes, strict=True):
        if box is None:
            continue
        x, y = axes.transData.inverted().transform([end * per_point for end in point])
        centre = (box.left + box.right) / 2 - point[0], (box.bottom + box.top) / 2 - point[1]
        far = distance(box, point) > REACHES[1] + 1 or _nearer(box, point, [*points, *others]) > 0
        axes.annotate(
            text,
            (x, y),
            centre,
            textcoords="offset points",
            fontsize=FONT_SIZE,
            color=INK,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.6} if far else None,
        )


def _bar(start: Pair, end: Pair) -> Box:
    (x, y), (u, v) = start, end
    return Box(min(x, u) - 0.5, min(y, v) - 0.5, max(x, u) + 0.5, max(y, v) + 0.5)


def distance(box: Box, point: Pair) -> float:
    """How far a point lies from a rectangle, in points of print."""
    x, y = point
    across = max(box.left - x, 0.0, x - box.right)
    up = max(box.bottom - y, 0.0, y - box.top)
    return float((across**2 + up**2) ** 0.5)
