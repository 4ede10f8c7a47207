"""The figure: errors against n on log-log axes, in four panels, each with its guide lines.

A model has the colour and marker of its method in the reports; a sequence's rate has a line style.
Same study, same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from harness.report.figures import FORMATS, GRID, INK, STYLES
from harness.theory.statements import exponent_text, number_text
from harness.theory.summary import Row, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "theory-rates"
"""Of the figure's files."""
TITLE = "Errors of prompts and gates against the number of observations (our simulation)"

_STYLES = {
    ("zero-init", True): STYLES["zero-init-linear"],
    ("zero-init", False): STYLES["zero-init-nonlinear"],
    ("joint", True): STYLES["random-init"],
    ("joint", False): ("#CC79A7", "D"),
}
"""Colour and marker by gating and whether prompts are linear, in the order of the legends."""
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
class Panel:
    """One panel: the rows that it shows, and its guide lines."""

    title: str
    label: str
    """Of the vertical axis."""
    rows: tuple[Row, ...]
    guides: dict[float, bool]
    """Exponent of a guide line -> whether it is drawn above the curves, else below."""

    def draw(self, axes: Axes) -> None:
        """Draws means with two standard errors, and guide lines; leaves the legend to others."""
        for row in self.rows:
            _draw_row(axes, row)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for exponent, is_above in self.guides.items():
            _draw_guide(axes, self.rows, exponent, is_above)
        axes.set_xlabel("Number of observations n")
        axes.set_ylabel(self.label)


def panels(study: Study) -> tuple[Panel, ...]:
    """Returns the four panels; those that a study has no rows for are left out."""

    def panel(
        title: str, label: str, guides: dict[float, bool], quantity: str, **properties: object
    ) -> Panel:
        found = study.find(quantity=quantity, knows_alpha=False, **properties)
        shown = [row for row in found if row.scenario.rate in _DASHES]
        shown.sort(key=lambda r: list(_STYLES).index((r.scenario.gating, r.scenario.is_linear)))
        return Panel(title, label, tuple(shown), guides)

    prompts, fixed = "Error of the prompts", {"family": "fixed"}
    exact, over = "as many prompts fitted as there are", "one prompt too many: over-fitted cells"
    copies = "Prompts drift to copies of experts as n⁻ᵃ"
    gate = "Gate (joint: prompt mass) falls as n⁻ᵃ"
    found = (
        panel(f"Fixed truth, {exact}", prompts, {-0.5: True}, "single", extra_atoms=0, **fixed),
        panel(f"Fixed truth, {over}", f"{prompts} in that cell", {-0.25: True}, "over",
              extra_atoms=1, **fixed),
        panel(copies, "Voronoi loss D", {-0.5: False}, "voronoi", family="copy"),
        panel(gate, prompts, {-0.25: True, -0.5: False}, "prompt", family="gate"),
    )  # fmt: skip
    return tuple(panel for panel in found if panel.rows)


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
        axes.grid(color=GRID, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", frameon=False, fontsize=8.5, handlelength=3.2)
        # Lowers the vertical axis so that the legend stands below the curves.
        low, high = (math.log10(limit) for limit in axes.get_ylim())
        share = 0.05 + 0.05 * len(panel.rows)
        axes.set_ylim(10 ** (low - (high - low) * share / (1 - share)), 10**high)
    figure.suptitle(TITLE)
    return figure


def _draw_row(axes: Axes, row: Row) -> None:
    colour, marker = _STYLES[row.scenario.gating, row.scenario.is_linear]
    points = [point for point in row.points if point.mean > 0]
    rate = f", a = {Fraction(row.scenario.rate)}" if row.scenario.is_sequence else ""
    slope = f": slope {number_text(row.slope.value)}" if row.slope else ""
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
        label=f"{row.scenario.model_title}{rate}{slope}",
    )


def _draw_guide(axes: Axes, rows: Sequence[Row], exponent: float, is_above: bool) -> None:
    """Draws a line of an exponent a little above or below the curves, named at its right end."""
    points = [point for row in rows for point in row.points]
    first, last = min(p.n for p in points), max(p.n for p in points)
    starts = [point.mean for point in points if point.n == first]
    height = 1.9 * max(starts) if is_above else min(starts) / 1.9
    ends = [height, height * (last / first) ** exponent]
    axes.plot([first, last], ends, color=INK, linewidth=1, linestyle=":")
    axes.annotate(
        f"$n^{{{exponent_text(exponent)}}}$",
        (last, ends[1]),
        xytext=(6, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=INK,
    )
    axes.set_xlim(first / 1.5, last * (last / first) ** 0.12)
