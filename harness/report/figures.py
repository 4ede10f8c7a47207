"""What all figures share: formats, palette, layout, and the curve of a method over its seeds.

A method has one colour and one marker in all of them. The palette is Okabe and Ito's, made for all
kinds of colour vision (https://jfly.uni-koeln.de/color/). Same input, same bytes.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.analysis.variants import BASE, Variant, representatives
from harness.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f24"
"""Colour of text and axes; the page turns it into its own text colour."""

GRID = "#8a929a"

STYLES = {
    "full": ("#D55E00", "s"),
    "lora": ("#CC79A7", "D"),
    "random-init": ("#E69F00", "^"),
    "zero-init-linear": ("#0072B2", "o"),
    "zero-init-nonlinear": ("#009E73", "v"),
}
"""Colour and marker of each method, by registry name."""

MORE_STYLES = (
    ("#56B4E9", "P"),
    ("#882255", "X"),
    ("#999933", "<"),
    ("#AA4499", ">"),
    ("#44AA99", "p"),
    ("#AA7744", "h"),
    ("#777777", "*"),
)
"""For other methods and labels, in the order of their names."""

FONT = "DejaVu Sans"
LEGEND_WIDTH, TITLE_WIDTH = 60, 62
"""Characters of a line of a legend, and of a title above one panel."""

MOST_METHODS = len(STYLES) + len(MORE_STYLES)
"""In one figure: more have no styles of their own."""

Styles = Mapping[str, tuple[str, str]]
"""Colour and marker by method label."""

FORMATS = ("png", "svg", "pdf")
DPI = 160

_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Plot:
    """One panel."""

    title: str
    draw: Callable[[Axes], None]
    finish: Callable[[Axes], None] | None = None
    """Draws what depends on where things came to stand, such as labels beside points."""


@dataclass(frozen=True)
class Drawing:
    """A figure of one or more panels that share a legend."""

    name: str
    """Name of its files."""
    title: str
    caption: str
    panels: tuple[Plot, ...]

    def render(self, format_name: str, *, panel: Plot | None = None) -> bytes:
        """The figure in one of FORMATS; of one panel alone, without title and background."""
        return self.files((format_name,), panel=panel)[format_name]

    def files(
        self, formats: Sequence[str] = FORMATS, *, panel: Plot | None = None
    ) -> dict[str, bytes]:
        """The figure in several formats, drawn and laid out once; see `render`."""
        from matplotlib import rc_context

        settings: dict[Any, Any] = {
            **{"svg.hashsalt": self.name, "pdf.fonttype": 42, "font.family": FONT},
            **{"font.size": 10, "axes.titlesize": 11, "text.color": INK, "axes.edgecolor": INK},
            **{"axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK},
            "axes.facecolor": "none",
        }
        files = {}
        with rc_context(settings):
            figure = _draw([panel], "") if panel else _draw(list(self.panels), self.title)
            for name in formats:
                target, ground = io.BytesIO(), "none" if panel else "white"
                kept = _METADATA[name]
                figure.savefig(target, format=name, dpi=DPI, metadata=kept, facecolor=ground)
                files[name] = target.getvalue()
        return files


def _draw(panels: list[Plot], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
    figure = Figure(layout=layout, dpi=DPI)
    FigureCanvasAgg(figure)
    entries: dict[str, Any] = {}
    drawn: list[tuple[Plot, Axes]] = []
    num_rows_of_panels = -(-len(panels) // MOST_ABREAST)
    abreast = -(-len(panels) // num_rows_of_panels)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(num_rows_of_panels, abreast, index + 1)
        panel.draw(axes)
        drawn.append((panel, axes))
        axes.set_title(wrapped(panel.title, TITLE_WIDTH))
        axes.grid(axis="y", color=GRID, alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip((wrapped(name, LEGEND_WIDTH) for name in labels), handles, strict=True))
    if title:
        figure.suptitle(wrapped(title, TITLE_WIDTH * abreast))
    num_rows = 0
    if entries:
        # As many columns as keep the legend as wide as the panels.
        lines = [line for name in entries for line in name.splitlines()]
        fitting = (90 * abreast) // (max(map(len, lines)) + 8)
        ncols = max(1, min(4, len(entries), fitting))
        num_rows = -(-len(lines) // ncols)
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": ncols, "frameon": False}
        figure.legend(list(entries.values()), list(entries), fontsize=9, **place)
    # The panels keep their size: a long legend makes the figure taller.
    height = 4.0 * num_rows_of_panels
    figure.set_size_inches(5.4 * abreast, height + 0.19 * max(0, num_rows - 3))
    # Laid out here, once: a figure that has an engine is drawn twice for each format.
    layout.execute(figure)
    figure.set_layout_engine(None)
    for panel, axes in drawn:
        if panel.finish is not None:
            panel.finish(axes)
    return figure


def legend_name(name: str) -> str:
    """A name that a legend shows: one that begins with a low line would be left out of it."""
    return f" {name}" if name.startswith("_") else name


def wrapped(text: str, width: int) -> str:
    """A text as it is, in lines of so many characters: nothing in it is mathematics."""
    lines = textwrap.wrap(shown(text), width, break_on_hyphens=False) or [""]
    return "\n".join(lines).replace("$", r"\$")


def shown(text: str) -> str:
    """A text in which what the font cannot draw stands as its number."""
    text = printable(text)
    return text if text.isascii() else "".join(map(_drawable, text))


@cache
def _drawable(character: str) -> str:
    from matplotlib.font_manager import findfont, get_font

    if character.isascii() or get_font(findfont(FONT)).get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode("ascii")


def apart(places: Sequence[float], least: float) -> list[int]:
    """Of ascending places on a log axis, those whose labels do not touch: the last one, and others.

    `least` is the smallest share of the axis between two.
    """
    span = math.log(places[-1] / places[0]) if len(places) > 1 else 0.0
    kept = [len(places) - 1]
    for index in reversed(range(len(places) - 1)):
        if math.log(places[kept[-1]] / places[index]) >= least * span:
            kept.append(index)
    return kept[::-1]


def file_name(model: str) -> str:
    """A model's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model)


def place_name(model: str, data: str | None) -> str:
    """A model and a data set, where the grid has several, as part of a file name."""
    return file_name(model if data is None else f"{model}@{data}")


MOST_ABREAST = 4
"""Panels side by side."""


def styles_of(variants: Sequence[Variant]) -> Styles:
    """Colour and marker by method label, the same for every figure of a report."""
    labels = {v.method: v.method_name for v in variants if v.method_name != BASE}
    styles = {
        label: STYLES[name] for label, name in labels.items() if label == name and name in STYLES
    }
    others = sorted(set(labels) - set(styles))
    number = len(MORE_STYLES)
    # Where the colours begin again, the markers have moved on.
    more = (
        (MORE_STYLES[index % number][0], MORE_STYLES[(index + index // number) % number][1])
        for index in range(len(others))
    )
    return styles | dict(zip(others, more, strict=True))


def drawn_methods(variants: Sequence[Variant], model: str) -> tuple[set[str], str]:
    """Labels that a model's figures show, and what their captions say of the others.

    All are shown, or of too many those that stand for their methods.
    """
    mine = [v for v in variants if v.model == model and v.method_name != BASE]
    labels = {variant.method for variant in mine}
    if len(labels) <= MOST_METHODS:
        return labels, ""
    drawn = {variant.method for variant in representatives(mine)}
    number = len(labels - drawn)
    left_out = f" Not drawn, for their number: {number} other settings of these methods."
    return drawn, left_out * (number > 0)


def draw_curve(
    axes: Axes, points: Sequence[tuple[float, list[float]]], style: tuple[str, str], label: str
) -> None:
    """Draws a method: its seeds as small marks, their mean as a line, their range as a band.

    Points are a place on the horizontal axis and the seeds' values there; the style is a colour
    and a marker.
    """
    colour, marker = style
    xs = [x for x, _ in points]
    means = [sum(values) / len(values) for _, values in points]
    low, high = ([end(values) for _, values in points] for end in (min, max))
    axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    seeds = [(x, value) for x, values in points for value in values]
    axes.plot(*zip(*seeds, strict=True), marker, markersize=3, color=colour, alpha=0.55)
    look: dict[str, Any] = {"marker": marker, "markersize": 6.5, "linewidth": 1.6}
    axes.plot(xs, means, color=colour, label=legend_name(label), **look)
