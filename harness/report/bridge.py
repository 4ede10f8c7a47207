"""Error against training examples of a grid's own runs, plotted as in the theory's simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.measurements import Measurements
from harness.analysis.student import t_quantile
from harness.analysis.variants import name_of
from harness.report.figures import Drawing, Plot, Styles, apart, draw_curve, place_name, wrapped
from harness.theory.slopes import Slope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BRIDGE = "error-and-examples"
"""Begins the names of the drawings."""
FEWEST_SHARES = 3
"""A slope's interval needs one point more than a line has parameters."""
MOST_SLOPES = 6
"""Slopes that are written into a panel: more leave no room for the curves."""
LONGEST_NAME = 36
"""Characters of a method's name beside its slope."""
Curves = dict[tuple[str, str], list[tuple[float, list[float]]]]
"""By a method's label and its printed name: number of examples and the seeds' errors, ascending."""


def fit_decay(examples: Sequence[float], errors: Sequence[float]) -> Slope | None:
    """Fits a line to log error against log examples; None for fewer than three points.

    The 95% interval is Student's t from the scatter of the points about the line.
    """
    import numpy as np

    if len(set(examples)) < FEWEST_SHARES or min(errors) <= 0:
        return None
    (slope, _), covariance = np.polyfit(np.log(examples), np.log(errors), 1, cov=True)
    reach = t_quantile(0.975, len(examples) - 2) * float(covariance[0, 0]) ** 0.5
    return Slope(float(slope), float(slope) - reach, float(slope) + reach)


def bridge_drawing(
    measured: Measurements, group: Group, model: str, data: str | None, styles: Styles
) -> Drawing | None:
    """Error against examples on log-log axes; None where no method has enough shares.

    Of the averages, or without any of the benchmarks: of what is a share of right answers.
    """
    plots = []
    for column in group.averages or group.columns:
        if group.parts(column) is None or group.unit(column) or group.is_lower_better(column):
            continue
        curves = _error_curves(measured, group, model, data, column)
        if curves:
            plots.append(Plot(column, partial(_draw, curves=curves, styles=styles)))
    where = model + (f" on {data}" if data is not None else "")
    if not plots:
        return None
    return Drawing(
        name=f"{BRIDGE}-{place_name(model, data)}{group.suffix()}",
        title=f"{where}, {group.protocol} protocol: error against number of training examples",
        caption=(
            f"{where}, {group.title}. Error is 1 − accuracy; small marks: single seeds, line: "
            "their mean, band: from the lowest to the highest seed. Written in (for no more than "
            f"{MOST_SLOPES} methods): the slope of "
            "log mean error on log examples, with the 95% interval that the points' scatter about "
            "a line gives. It describes these points and no more: the theorems bound how fast "
            "prompts approach a truth that the model contains, with n to infinity. Here no truth "
            "is known, the error has an unknown floor, a larger share also means more training "
            "steps, and a handful of shares cannot tell a power from a logarithm. Neither a slope "
            "nor an order of methods here confirms or refutes a rate."
        ),
        panels=tuple(plots),
    )


def _error_curves(
    measured: Measurements, group: Group, model: str, data: str | None, column: str
) -> Curves:
    known = measured.data.cells.dropna(subset=["examples"])
    examples = dict(zip(known["cell_id"], known["examples"].astype(float), strict=True))
    curves: Curves = {}
    for variant, cells in measured.cells.items():
        if (variant.model, variant.data) != (model, data) or variant.fraction is None:
            continue
        errors = [1 - score for score in measured.seed_scores(variant, group, column).values()]
        counts = [examples[cell_id] for cell_id in cells.values() if examples.get(cell_id)]
        if counts and sum(errors) > 0:
            key = variant.method, name_of(variant)
            curves.setdefault(key, []).append((counts[0], errors))
    return {
        key: sorted(points, key=lambda point: point[0])
        for key, points in curves.items()
        if len(points) >= FEWEST_SHARES
    }


def _draw(axes: Axes, *, curves: Curves, styles: Styles) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    for (method, name), points in curves.items():
        draw_curve(axes, points, styles[method], name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    places = sorted({examples for points in curves.values() for examples, _ in points})
    ticks = [places[index] for index in apart(places, 0.1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.set_xlabel("Training examples (log scale)")
    axes.set_ylabel("1 − accuracy (log scale)")
    _write_slopes(axes, curves, styles)


def _write_slopes(axes: Axes, curves: Curves, styles: Styles) -> None:
    """Writes each method's slope in its colour, below the curves."""
    lines = []
    for (method, name), points in curves.items():
        means = [sum(errors) / len(errors) for _, errors in points]
        decay = fit_decay([examples for examples, _ in points], means)
        if decay is not None:
            reach = f"[{decay.low:.2f}, {decay.high:.2f}]"
            numbers = f"slope {decay.value:.2f} {reach}".replace("-", "−")
            short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
            lines.append((wrapped(f"{short}: {numbers}", 2 * LONGEST_NAME), method))
    if len(lines) > MOST_SLOPES:
        return
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    share = 0.06 * (len(lines) + 1)
    axes.set_ylim(10 ** (low - (high - low) * share / (1 - share)), 10**high)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 10**low])
    for index, (text, method) in enumerate(reversed(lines)):
        height, colour = 0.03 + 0.06 * index, styles[method][0]
        axes.text(0.02, height, text, transform=axes.transAxes, color=colour, fontsize=8.5)
