"""The figure of sample efficiency: accuracy against the share of the training data.

The paper's Figures 2 and 3 show the ARC average so; the Average of all benchmarks is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.comparisons import name_of
from harness.analysis.measurements import BASE, Measurements, Variant
from harness.report.figures import (
    INK,
    Drawing,
    Plot,
    draw_curve,
    drawn_methods,
    file_name,
    left_out,
)
from harness.report.tables import chance_level

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def efficiency_drawing(
    measured: Measurements,
    group: Group,
    model: str,
    styles: Mapping[str, tuple[str, str]],
) -> Drawing | None:
    """Returns accuracy against the share of the data; None where there is nothing to draw."""
    panels = []
    for column in ("ARC avg", "Average"):
        curves = _curves(measured, group, model, column)
        if curves:
            title = "ARC average" if column == "ARC avg" else "Average of all benchmarks"
            panels.append(Plot(title, _efficiency_panel(measured, group, column, curves, styles)))
    if not panels:
        return None
    return Drawing(
        name=f"sample-efficiency-{file_name(model)}{group.suffix()}",
        title=f"{model}, {group.protocol} protocol: accuracy against share of the training data",
        caption=_efficiency_caption(measured, group, model),
        panels=tuple(panels),
    )


def _efficiency_caption(measured: Measurements, group: Group, model: str) -> str:
    errors = [
        estimate.stderr
        for variant in measured.table_variants(model)
        if variant.method_name != BASE
        for estimate in [measured.estimate(variant, group, "ARC avg")]
        if estimate is not None and estimate.stderr is not None
    ]
    size = ""
    if errors:
        size = (
            f" At the largest share one standard error of a mean's ARC average (items and seeds) "
            f"is {100 * min(errors):.1f} to {100 * max(errors):.1f} points."
        )
    return (
        f"{model}, {group.title}. Small marks: single seeds; line: their mean; band: from the "
        f"lowest to the highest seed, which is no confidence interval.{size} Shares on a log "
        "scale; methods are moved apart a little sideways. Horizontal lines: the untrained base "
        f"model and chance.{left_out(list(measured.cells), model)}"
    )


def _curves(
    measured: Measurements, group: Group, model: str, column: str
) -> dict[Variant, list[float]]:
    curves = {}
    drawn = drawn_methods(list(measured.cells), model)
    for variant in measured.cells:
        if variant.model == model and variant.fraction is not None and variant.method in drawn:
            scores = measured.seed_scores(variant, group, column)
            if scores:
                curves[variant] = [100 * score for score in scores.values()]
    return curves


def _efficiency_panel(
    measured: Measurements,
    group: Group,
    column: str,
    curves: Mapping[Variant, list[float]],
    styles: Mapping[str, tuple[str, str]],
) -> Callable[[Axes], None]:
    model = next(iter(curves)).model
    fractions = measured.fractions(model)
    methods = list(dict.fromkeys(variant.method for variant in curves))

    def draw(axes: Axes) -> None:
        for method in methods:
            ours = sorted(
                (v for v in curves if v.method == method), key=lambda v: v.fraction or 0.0
            )
            points = [(_place(v, list(curves)), curves[v]) for v in ours]
            draw_curve(axes, points, styles[method], name_of(ours[0]))
        _draw_levels(axes, measured, group, model, column)
        axes.set_xscale("log")
        axes.set_xticks(fractions, [f"{100 * fraction:g}%" for fraction in fractions])
        axes.minorticks_off()
        axes.set_xlim(fractions[0] / 1.25, fractions[-1] * 1.25)
        axes.set_xlabel("Share of the training data (log scale)")
        axes.set_ylabel("Accuracy (%)")

    return draw


def _place(variant: Variant, variants: Sequence[Variant]) -> float:
    """Returns where a variant's marks stand: methods of the same share side by side."""
    beside = [other for other in variants if other.fraction == variant.fraction]
    step = min(1.045, 1.25 ** (1 / len(beside)))
    return (variant.fraction or 0.0) * step ** (beside.index(variant) - (len(beside) - 1) / 2)


def _draw_levels(axes: Axes, measured: Measurements, group: Group, model: str, column: str) -> None:
    for variant in measured.cells:
        if variant.model == model and variant.method_name == BASE:
            for score in measured.seed_scores(variant, group, column).values():
                axes.axhline(
                    100 * score, color=INK, linestyle="--", linewidth=1.1, label=name_of(variant)
                )
    chance = chance_level(measured, group, column)
    if chance is not None:
        axes.axhline(100 * chance, color=INK, linestyle=":", linewidth=1.1, label="Chance")
