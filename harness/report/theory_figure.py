"""The figures of the theory: errors against n on log-log axes, each panel with its guide lines.

A model has the colour and marker of its method in the reports; a sequence's rate has a line style.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
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
    titled = "errors of prompts and gates against the number of observations (our simulation)"
    found = (
        Drawing("theory-fixed", f"Fixed truths: {titled}", OURS, tuple(_fixed(study))),
        Drawing("theory-moving", f"Moving truths: {titled}", OURS, tuple(_moving(study))),
    )
    return [drawing for drawing in found if drawing.panels]


def _fixed(study: Study) -> Iterator[Plot]:
    rows = study.find(family="fixed", extra_atoms=0, quantity="single")
    title = "Fixed truth, as many prompts fitted as there are"
    yield from _plot("a", title, _PROMPTS, rows, {-0.5: True})
    rows = study.find(family="fixed", extra_atoms=1, quantity="over")
    title = "Fixed truth, one prompt too many: over-fitted cells"
    yield from _plot("b", title, f"{_PROMPTS} in that cell", rows, {-0.25: True})


def _moving(study: Study) -> Iterator[Plot]:
    rows = study.find(family="copy", quantity="voronoi")
    title = "Prompts drift to copies of experts as n⁻ᵃ"
    yield from _plot("c", title, "Voronoi loss D", rows, {-0.5: False})
    rows = study.find(family="gate", quantity="prompt")
    title = "Gate (joint: prompt mass) falls as n⁻ᵃ"
    yield from _plot("d", title, _PROMPTS, rows, {-0.25: True, -0.5: False})


def _plot(
    letter: str, title: str, label: str, rows: Sequence[Row], guides: Mapping[float, bool]
) -> Iterator[Plot]:
    """Yields a panel where there are rows.

    Args:
        letter: names the panel in its title and in the legend, which panels share.
        title: its condition.
        label: of the vertical axis.
        rows: what it shows.
        guides: exponent of a guide line -> whether it is drawn above the curves, else below.
    """
    order = list(_STYLES)
    shown = sorted(
        (row for row in rows if row.scenario.rate in _DASHES),
        key=lambda row: order.index((row.scenario.gating, row.scenario.is_linear)),
    )
    if shown:
        draw = partial(_draw, letter=letter, label=label, rows=shown, guides=guides)
        yield Plot(f"({letter}) {title}", draw)


def _draw(
    axes: Axes, *, letter: str, label: str, rows: Sequence[Row], guides: Mapping[float, bool]
) -> None:
    """Draws means with two standard errors, and guide lines; leaves the legend to the figure."""
    for row in rows:
        _draw_row(axes, row, letter)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for exponent, is_above in guides.items():
        _draw_guide(axes, rows, exponent, is_above)
    axes.set_xlabel("Number of observations n")
    axes.set_ylabel(label)


def _draw_row(axes: Axes, row: Row, letter: str) -> None:
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
        label=f"({letter}) {row.scenario.model_title}{rate}{slope}",
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
