"""The figure: errors against n on log-log axes, in four panels, each with its guide lines.

A model has one colour and marker, those of the methods in the reports (Okabe and Ito's palette);
a sequence's rate has a line style. Same study, same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from harness.theory.statements import exponent_text, number_text
from harness.theory.summary import Row, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "theory-rates"
"""Of the figure's files."""
TITLE = "Errors of prompts and gates against the number of observations (our simulation)"
INK = "#1b1f24"
"""Of text, axes and guide lines, as in the reports' figures."""
FORMATS = ("png", "svg", "pdf")

_STYLES = {
    ("zero-init", True): ("#0072B2", "o"),
    ("zero-init", False): ("#009E73", "v"),
    ("joint", True): ("#E69F00", "^"),
    ("joint", False): ("#CC79A7", "D"),
}
_DASHES: dict[float, Any] = {0.0: "-", 0.125: (0, (5, 1.5)), 0.25: (0, (1.5, 1.2))}
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_SETTINGS: dict[Any, Any] = {
    **{"svg.hashsalt": NAME, "pdf.fonttype": 42, "font.family": "DejaVu Sans", "font.size": 10},
    **{"axes.titlesize": 11, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK},
    **{"xtick.color": INK, "ytick.color": INK},
}


@dataclass(frozen=True)
class Guide:
    """A line of a given exponent, to compare slopes with."""

    exponent: float
    is_above: bool
    """Of the curves, else below."""


@dataclass(frozen=True)
class Panel:
    """One panel: the rows that it shows, and its guide lines."""

    title: str
    label: str
    """Of the vertical axis."""
    rows: tuple[Row, ...]
    guides: tuple[Guide, ...]

    def draw(self, axes: Axes) -> None:
        """Draws means with two standard errors, and guide lines; leaves the legend to others."""
        for row in self.rows:
            _draw_row(axes, row)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for guide in self.guides:
            _draw_guide(axes, self.rows, guide)
        axes.set_xlabel("Number of observations n")
        axes.set_ylabel(self.label)


def panels(study: Study) -> tuple[Panel, ...]:
    """Returns the four panels; those that a study has no rows for are left out."""

    def rows(quantity: str, **properties: object) -> tuple[Row, ...]:
        found = study.find(quantity=quantity, **properties)
        shown = [r for r in found if r.scenario.rate in _DASHES and not r.scenario.knows_alpha]
        order = list(_STYLES)
        return tuple(
            sorted(shown, key=lambda r: order.index((r.scenario.gating, r.scenario.is_linear)))
        )

    chosen = (
        Panel(
            "Fixed truth, as many prompts fitted as there are",
            "Error of the prompts",
            rows("single", family="fixed", extra_atoms=0),
            (Guide(-0.5, True),),
        ),
        Panel(
            "Fixed truth, one prompt too many: over-fitted cells",
            "Error of the prompts in that cell",
            rows("over", family="fixed", extra_atoms=1),
            (Guide(-0.25, True),),
        ),
        Panel(
            "Prompts drift to copies of words as n⁻ᵃ",
            "Voronoi loss D",
            rows("voronoi", family="copy"),
            (Guide(-0.5, False),),
        ),
        Panel(
            "Gate (joint: prompt mass) falls as n⁻ᵃ",
            "Error of the prompts",
            rows("prompt", family="gate"),
            (Guide(-0.25, True), Guide(-0.5, False)),
        ),
    )
    return tuple(panel for panel in chosen if panel.rows)


def render(study: Study) -> dict[str, bytes]:
    """Returns the figure of all panels, two a row, by format: PNG, SVG and PDF."""
    from matplotlib import rc_context

    files = {}
    with rc_context(_SETTINGS):
        figure = _draw(study)
        # Laid out once: the three formats show the same.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for name in FORMATS:
            target = io.BytesIO()
            figure.savefig(target, format=name, dpi=150, metadata=_METADATA[name])
            files[name] = target.getvalue()
    return files


def _draw(study: Study) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(11.0, 9.6), layout=layout)
    FigureCanvasAgg(figure)
    for index, panel in enumerate(panels(study)):
        axes = figure.add_subplot(2, 2, index + 1)
        panel.draw(axes)
        axes.set_title(f"({'abcd'[index]}) {panel.title}", loc="left")
        axes.grid(color="#8a929a", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", frameon=False, fontsize=8.5, handlelength=3.2)
        _make_room(axes, panel.rows)
    figure.suptitle(TITLE)
    return figure


def label_of(row: Row) -> str:
    """Returns a curve's name for a legend, with its slope."""
    rate = f", a = {Fraction(row.scenario.rate)}" if row.scenario.is_sequence else ""
    slope = f": slope {number_text(row.slope.value)}" if row.slope else ""
    return f"{row.scenario.model_title}{rate}{slope}"


def _draw_row(axes: Axes, row: Row) -> None:
    colour, marker = _STYLES[row.scenario.gating, row.scenario.is_linear]
    points = [point for point in row.points if point.mean > 0]
    axes.errorbar(
        [point.n for point in points],
        [point.mean for point in points],
        # The lower end is cut above 0, which a logarithmic axis does not have.
        yerr=[[min(2 * p.stderr, 0.9 * p.mean) for p in points], [2 * p.stderr for p in points]],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.5,
        linestyle=_DASHES[row.scenario.rate],
        elinewidth=1,
        capsize=2,
        label=label_of(row),
    )


def _draw_guide(axes: Axes, rows: Sequence[Row], guide: Guide) -> None:
    """Draws a line of an exponent a little above or below the curves, named at its right end."""
    points = [point for row in rows for point in row.points]
    first, last = min(p.n for p in points), max(p.n for p in points)
    starts = [point.mean for point in points if point.n == first]
    height = 1.9 * max(starts) if guide.is_above else min(starts) / 1.9
    ends = [height, height * (last / first) ** guide.exponent]
    axes.plot([first, last], ends, color=INK, linewidth=1, linestyle=":")
    axes.annotate(
        f"$n^{{{exponent_text(guide.exponent)}}}$",
        (last, ends[1]),
        xytext=(6, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=INK,
    )
    axes.set_xlim(first / 1.5, last * (last / first) ** 0.12)


def _make_room(axes: Axes, rows: Sequence[Row]) -> None:
    """Lowers the vertical axis so that the legend stands below the curves."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    share = 0.05 + 0.05 * len(rows)
    axes.set_ylim(10 ** (low - (high - low) * share / (1 - share)), 10**high)
