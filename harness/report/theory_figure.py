"""The figures of the theory: errors against n on log-log axes, each panel with its guide lines.

A model has the colour and marker of its method in the reports; a sequence's rate has a line style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from harness.report.figures import INK, STYLES, Drawing, Plot
from harness.theory.slopes import FEWEST_OBSERVATIONS
from harness.theory.statements import exponent_text, number_text
from harness.theory.summary import Row, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS = (
    "Our illustration of the theorems by simulation, not a figure of the paper: mean error over "
    "repetitions ± two standard errors against the number of observations n, on log-log axes. "
    f"Slopes are fitted from n = {FEWEST_OBSERVATIONS:,} on; dotted lines have the slopes at their "
    "ends. Each line's condition stands in its panel's title and in the legend."
)
_STYLES = {
    ("zero-init", True): STYLES["zero-init-linear"],
    ("zero-init", False): STYLES["zero-init-nonlinear"],
    ("joint", True): STYLES["random-init"],
    ("joint", False): ("#CC79A7", "D"),
}
"""Colour and marker by gating and whether prompts are linear, in the order of the legends."""
_DASHES: dict[float, Any] = {0.0: "-", 0.125: (0, (5, 1.5)), 0.25: (0, (1.5, 1.2))}
_PROMPTS = "Error of the prompts"


def drawings(study: Study) -> list[Drawing]:
    """Figures of fixed and of moving truths; panels without a row are left out."""
    single = study.find(family="fixed", extra_atoms=0, quantity="single")
    over = study.find(family="fixed", extra_atoms=1, quantity="over")
    copies = study.find(family="copy", quantity="voronoi")
    gates = study.find(family="gate", quantity="prompt")
    exact, extra = "as many prompts fitted as there are", "one prompt too many: over-fitted cells"
    drift, falls = "Prompts drift to copies of experts", "Gate (joint: prompt mass) falls"
    panels = {
        "Fixed": (
            _plot(f"(a) Fixed truth, {exact}", _PROMPTS, single, {-0.5: True}),
            _plot(f"(b) Fixed truth, {extra}", f"{_PROMPTS} in that cell", over, {-0.25: True}),
        ),
        "Moving": (
            _plot(f"(c) {drift} as n⁻ᵃ", "Voronoi loss D", copies, {-0.5: False}),
            _plot(f"(d) {falls} as n⁻ᵃ", _PROMPTS, gates, {-0.25: True, -0.5: False}),
        ),
    }
    titled = "errors of prompts and gates against the number of observations (our simulation)"
    return [
        Drawing(f"theory-{kind.lower()}", f"{kind} truths: {titled}", OURS, plots)
        for kind, found in panels.items()
        if (plots := tuple(plot for plot in found if plot is not None))
    ]


def _plot(title: str, label: str, rows: Sequence[Row], guides: Mapping[float, bool]) -> Plot | None:
    """A panel, where there are rows.

    Args:
        title: its condition, after the letter that names it in the legend, which panels share.
        label: of the vertical axis.
        rows: what it shows.
        guides: exponent of a guide line -> whether it is drawn above the curves, else below.
    """
    order = list(_STYLES)
    shown = sorted(
        (row for row in rows if row.scenario.rate in _DASHES),
        key=lambda row: order.index((row.scenario.gating, row.scenario.is_linear)),
    )

    def draw(axes: Axes) -> None:
        for row in shown:
            _draw_row(axes, row, title.partition(" ")[0])
        axes.set_xscale("log")
        axes.set_yscale("log")
        for exponent, is_above in guides.items():
            _draw_guide(axes, shown, exponent, is_above)
        axes.set_xlabel("Number of observations n")
        axes.set_ylabel(label)

    return Plot(title, draw) if shown else None


def _draw_row(axes: Axes, row: Row, letter: str) -> None:
    """Draws means with two standard errors; leaves the legend to the figure."""
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
        label=f"{letter} {row.scenario.model_title}{rate}{slope}",
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
