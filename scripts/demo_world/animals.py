"""The ten pets of the embedded world as outlines: ellipses, polygons and strokes.

Each animal fills the square from -1 to 1, y downwards, and looks to the right. `Pen` puts it into
a picture; what an animal looks like is all that is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Point = tuple[float, float]
Rgb = tuple[int, int, int]

NUM_CORNERS = 20
"""Of the polygon that stands for an ellipse."""


@dataclass(frozen=True)
class Coat:
    """The colours of one animal."""

    body: Rgb
    dark: Rgb
    """Of what lies in the shadow: far legs, ears, a shell's pattern."""
    line: Rgb
    """Of the outline."""


@dataclass(frozen=True)
class Pen:
    """Draws in an animal's own coordinates: turned, mirrored, scaled and moved into the picture."""

    canvas: ImageDraw
    coat: Coat
    centre: Point
    size: float
    """Pixels per unit."""
    tilt: float
    """Radians."""
    is_mirrored: bool

    def place(self, x: float, y: float) -> Point:
        """A point's place in the picture."""
        x = -x if self.is_mirrored else x
        cos, sin = math.cos(self.tilt) * self.size, math.sin(self.tilt) * self.size
        return self.centre[0] + x * cos - y * sin, self.centre[1] + x * sin + y * cos

    def polygon(self, points: Sequence[Point], fill: Rgb | None = None) -> None:
        """A closed outline, filled with the body's colour by default."""
        placed = [self.place(*point) for point in points]
        self.canvas.polygon(placed, fill=fill or self.coat.body, outline=self.coat.line)

    def ellipse(
        self, x: float, y: float, width: float, height: float, fill: Rgb | None = None,
        turn: float = 0.0,
    ) -> None:  # fmt: skip
        """An ellipse around (x, y) with two half axes, turned by degrees."""
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        corners = []
        for step in range(NUM_CORNERS):
            angle = 2 * math.pi * step / NUM_CORNERS
            across, down = width * math.cos(angle), height * math.sin(angle)
            corners.append((x + across * cos - down * sin, y + across * sin + down * cos))
        self.polygon(corners, fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Rgb | None = None) -> None:
        """A line through points with round joints."""
        placed = [self.place(*point) for point in points]
        thick = max(1, round(width * self.size))
        self.canvas.line(placed, fill=fill or self.coat.body, width=thick, joint="curve")

    def legs(self, places: Sequence[float], top: float, bottom: float, width: float) -> None:
        """Straight legs; every second one is on the far side."""
        for number, x in enumerate(places):
            fill = self.coat.dark if number % 2 else None
            half = width / 2
            self.polygon([(x - half, top), (x + half, top), (x + half, bottom), (x - half, bottom)],
                         fill)  # fmt: skip

    def eye(self, x: float, y: float, radius: float = 0.09) -> None:
        """White with a black pupil, so that it stands out from every coat."""
        self.ellipse(x, y, radius, radius, (250, 250, 250))
        self.ellipse(x + 0.02, y, radius * 0.55, radius * 0.55, (10, 10, 10))


def _curve(points: Sequence[Point], steps: int = 6) -> list[Point]:
    """A smooth line through points (Catmull-Rom)."""
    padded = [points[0], *points, points[-1]]
    found = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(steps):
            t = step / steps
            found.append(tuple(
                0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2
                       + (3 * q - p - 3 * r + s) * t**3)
                for p, q, r, s in zip(a, b, c, d, strict=True)
            ))  # fmt: skip
    return [*((x, y) for x, y in found), points[-1]]


def _dog(pen: Pen) -> None:
    pen.stroke(_curve([(-0.6, -0.05), (-0.85, -0.25), (-0.9, -0.6)]), 0.14)
    pen.legs((-0.5, -0.3, 0.35, 0.15), 0.2, 0.85, 0.18)
    pen.ellipse(-0.08, 0.12, 0.62, 0.3)
    pen.polygon([(0.2, 0.1), (0.35, -0.45), (0.7, -0.3), (0.52, 0.2)])
    pen.ellipse(0.55, -0.45, 0.3, 0.27)
    pen.ellipse(0.82, -0.35, 0.24, 0.15)
    pen.ellipse(1.0, -0.41, 0.08, 0.07, (15, 15, 15))
    pen.ellipse(0.34, -0.36, 0.13, 0.32, pen.coat.dark, turn=12)
    pen.eye(0.65, -0.53)


def _cat(pen: Pen) -> None:
    pen.stroke(_curve([(-0.3, 0.75), (-0.8, 0.75), (-0.9, 0.3), (-0.7, 0.0)]), 0.16)
    pen.ellipse(0.0, 0.42, 0.42, 0.5)
    pen.legs((-0.14, 0.14), 0.45, 0.92, 0.2)
    for side in (-1, 1):
        pen.polygon([(side * 0.46, -0.2), (side * 0.46, -0.95), (side * 0.06, -0.6)])
        pen.polygon([(side * 0.4, -0.45), (side * 0.4, -0.76), (side * 0.2, -0.58)], pen.coat.dark)
    pen.ellipse(0.0, -0.32, 0.5, 0.4)
    for side in (-1, 1):
        pen.eye(side * 0.2, -0.38, 0.1)
        for droop in (-0.08, 0.06):
            pen.stroke([(side * 0.12, -0.16), (side * 0.75, -0.18 + droop * 1.4)], 0.04,
                       pen.coat.line)  # fmt: skip
    pen.polygon([(-0.07, -0.24), (0.07, -0.24), (0.0, -0.15)], (225, 130, 140))


def _horse(pen: Pen) -> None:
    pen.polygon(_curve([(-0.58, -0.15), (-0.85, 0.0), (-0.95, 0.6), (-0.72, 0.45), (-0.6, 0.1)]),
                pen.coat.dark)  # fmt: skip
    pen.legs((-0.5, -0.32, 0.32, 0.15), 0.1, 0.97, 0.14)
    pen.ellipse(-0.1, 0.0, 0.58, 0.28)
    pen.polygon([(0.08, -0.05), (0.38, -0.72), (0.66, -0.62), (0.46, 0.15)])
    pen.polygon([(0.4, -0.9), (0.62, -0.85), (0.98, -0.36), (0.86, -0.22), (0.68, -0.3),
                 (0.4, -0.6)])  # fmt: skip
    pen.polygon([(0.4, -0.8), (0.42, -1.02), (0.53, -0.85)])
    mane = [(0.42, -0.95), (0.18, -0.75), (0.02, -0.4), (-0.08, -0.1), (0.14, -0.12), (0.34, -0.65)]
    pen.polygon(mane, pen.coat.dark)
    pen.eye(0.6, -0.66, 0.07)


def _rabbit(pen: Pen) -> None:
    pen.ellipse(-0.72, 0.45, 0.18, 0.18, (245, 245, 245))
    pen.ellipse(-0.15, 0.4, 0.58, 0.46)
    pen.ellipse(-0.3, 0.58, 0.34, 0.3, pen.coat.dark)
    pen.ellipse(-0.1, 0.86, 0.42, 0.11)
    pen.ellipse(0.4, 0.82, 0.24, 0.1)
    pen.ellipse(0.2, -0.6, 0.12, 0.44, pen.coat.dark, turn=-14)
    pen.ellipse(0.44, -0.6, 0.13, 0.44, turn=8)
    pen.ellipse(0.44, -0.58, 0.06, 0.32, (240, 180, 190), turn=8)
    pen.ellipse(0.42, 0.0, 0.34, 0.3)
    pen.eye(0.52, -0.06)
    pen.ellipse(0.75, 0.04, 0.06, 0.05, (225, 130, 140))


def _parrot(pen: Pen) -> None:
    pen.polygon([(-0.25, 0.2), (-0.5, 1.0), (-0.32, 1.0), (-0.22, 0.92), (-0.1, 1.0), (0.1, 0.4)],
                pen.coat.dark)  # fmt: skip
    pen.stroke([(-0.75, 0.56), (0.75, 0.5)], 0.1, (110, 75, 40))
    pen.ellipse(0.0, 0.05, 0.34, 0.56, turn=12)
    pen.ellipse(-0.16, 0.12, 0.2, 0.46, pen.coat.dark, turn=14)
    for x in (0.0, 0.16):
        pen.ellipse(x, 0.52, 0.06, 0.1, (150, 150, 150))
    pen.polygon(_curve([(0.38, -0.72), (0.7, -0.62), (0.68, -0.25), (0.56, -0.4), (0.36, -0.4)]),
                (235, 190, 60))  # fmt: skip
    pen.ellipse(0.2, -0.58, 0.3, 0.29)
    for lean in (-0.1, 0.05):
        pen.polygon([(0.1, -0.82), (lean, -1.05), (0.24, -0.85)])
    pen.eye(0.27, -0.63, 0.1)


def _turtle(pen: Pen) -> None:
    for x in (-0.5, 0.4):
        pen.ellipse(x, 0.52, 0.17, 0.2)
    pen.polygon([(-0.7, 0.35), (-1.0, 0.5), (-0.68, 0.5)])
    pen.stroke(_curve([(0.5, 0.35), (0.72, 0.25), (0.8, 0.05)]), 0.2)
    pen.ellipse(0.82, 0.0, 0.19, 0.16)
    dome = [(-0.8, 0.42)]
    dome += [(-0.8 * math.cos(a), 0.42 - 0.85 * math.sin(a))
             for a in (math.pi * step / 14 for step in range(1, 14))]  # fmt: skip
    pen.polygon([*dome, (0.8, 0.42)], pen.coat.dark)
    for x, y in ((-0.42, 0.1), (0.0, 0.06), (0.42, 0.1), (-0.22, -0.24), (0.22, -0.24)):
        pen.ellipse(x, y, 0.17, 0.14)
    pen.polygon([(-0.84, 0.36), (0.84, 0.36), (0.76, 0.5), (-0.76, 0.5)])
    pen.eye(0.87, -0.04, 0.06)


def _goat(pen: Pen) -> None:
    pen.polygon([(-0.6, -0.05), (-0.85, -0.4), (-0.5, -0.12)])
    pen.legs((-0.48, -0.3, 0.32, 0.14), 0.2, 0.92, 0.13)
    pen.ellipse(-0.1, 0.12, 0.58, 0.33)
    pen.polygon([(0.15, 0.05), (0.35, -0.4), (0.65, -0.3), (0.48, 0.25)])
    for shift in (0.14, 0.0):
        horn = [(0.45, -0.5), (0.32, -0.92), (0.0, -1.0), (-0.18, -0.75)]
        pen.stroke(_curve([(x + shift, y) for x, y in horn]), 0.13, (95, 85, 75))
        pen.stroke(_curve([(x + shift, y) for x, y in horn]), 0.07, (205, 190, 160))
    pen.polygon([(0.78, -0.18), (0.7, 0.3), (0.58, -0.12)], (235, 230, 220))
    pen.polygon([(0.38, -0.58), (0.62, -0.6), (0.98, -0.24), (0.86, -0.1), (0.55, -0.15)])
    pen.ellipse(0.36, -0.36, 0.17, 0.07, pen.coat.dark, turn=35)
    pen.eye(0.62, -0.42, 0.07)


def _duck(pen: Pen) -> None:
    pen.ellipse(-0.1, 0.9, 0.16, 0.07, (240, 150, 30))
    pen.ellipse(0.14, 0.9, 0.16, 0.07, (240, 150, 30))
    for x in (-0.12, 0.12):
        pen.stroke([(x, 0.6), (x, 0.88)], 0.07, (240, 150, 30))
    pen.polygon(_curve([(0.62, 0.15), (0.45, 0.62), (-0.1, 0.75), (-0.55, 0.55), (-0.95, -0.05),
                        (-0.45, 0.1), (0.1, 0.05)]))  # fmt: skip
    pen.polygon([(0.16, 0.3), (0.26, -0.5), (0.56, -0.4), (0.62, 0.3)])
    pen.ellipse(-0.12, 0.34, 0.36, 0.2, pen.coat.dark, turn=-10)
    pen.ellipse(0.42, -0.52, 0.3, 0.28)
    pen.polygon([(0.66, -0.6), (1.05, -0.5), (1.08, -0.36), (0.66, -0.34)], (240, 150, 30))
    pen.eye(0.5, -0.6)


def _snake(pen: Pen) -> None:
    spine = [(-0.95, 0.7), (-0.55, 0.3), (-0.1, 0.7), (0.4, 0.75), (0.6, 0.4), (0.1, 0.1),
             (-0.3, -0.2), (0.0, -0.55), (0.5, -0.5)]  # fmt: skip
    path = _curve(spine)
    pen.stroke(path, 0.3, pen.coat.line)
    pen.stroke(path, 0.23)
    for x, y in path[5:-6:4]:
        pen.ellipse(x, y, 0.09, 0.08, pen.coat.dark)
    tongue = (215, 30, 60)
    pen.stroke([(0.75, -0.48), (0.98, -0.45)], 0.05, tongue)
    pen.stroke([(1.08, -0.55), (0.96, -0.45), (1.08, -0.36)], 0.05, tongue)
    pen.ellipse(0.58, -0.52, 0.26, 0.19)
    pen.eye(0.64, -0.6, 0.08)


def _frog(pen: Pen) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.62, 0.4, 0.3, 0.42, pen.coat.dark, turn=side * 20)
        pen.ellipse(side * 0.72, 0.8, 0.3, 0.1)
    pen.ellipse(0.0, 0.3, 0.58, 0.52)
    for side in (-1, 1):
        pen.stroke([(side * 0.28, 0.4), (side * 0.24, 0.8)], 0.16, pen.coat.dark)
        pen.ellipse(side * 0.26, 0.84, 0.18, 0.08)
        pen.ellipse(side * 0.34, -0.52, 0.22, 0.22)
    pen.ellipse(0.0, -0.2, 0.62, 0.36)
    for side in (-1, 1):
        pen.eye(side * 0.34, -0.54, 0.14)
    pen.stroke(_curve([(-0.45, -0.16), (0.0, 0.02), (0.45, -0.16)]), 0.06, pen.coat.line)


ANIMALS: dict[str, Callable[[Pen], None]] = {
    "dog": _dog,
    "cat": _cat,
    "horse": _horse,
    "rabbit": _rabbit,
    "parrot": _parrot,
    "turtle": _turtle,
    "goat": _goat,
    "duck": _duck,
    "snake": _snake,
    "frog": _frog,
}
