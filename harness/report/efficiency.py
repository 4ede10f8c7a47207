"""The figure of sample efficiency: accuracy against the share of the training data.

The paper's Figures 2 and 3 show the ARC average so; the Average of all benchmarks is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.curves import EfficiencyCurves
from harness.analysis.findings import Findings
from harness.analysis.measurements import BASE, Variant, name_of
from harness.report.figures import (
    INK,
    Drawing,
    Plot,
    draw_curve,
    drawn_methods,
    file_name,
    left_out,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def efficiency_drawing(
    findings: Findings, group: Group, model: str, styles: Mapping[str, tuple[str, str]]
) -> Drawing:
    """Accuracy of each seed and their mean against the share of the data."""
    measured = findings.measured
    variants = list(measured.cells)
    trained = [v for v in measured.table_variants(model) if v.method_name != BASE]
    estimates = [measured.estimate(variant, group, "ARC avg") for variant in trained]
    errors = [one.stderr for one in estimates if one is not None and one.stderr is not None]
    size = ""
    if errors:
        size = (
            f" At the largest share one standard error of a mean's ARC average (items and seeds) "
            f"is {100 * min(errors):.1f} to {100 * max(errors):.1f} points."
        )
    titles = {"ARC avg": "ARC average", "Average": "Average of all benchmarks"}
    drawn, fractions = drawn_methods(variants, model), measured.fractions(model)
    return Drawing(
        name=f"sample-efficiency-{file_name(model)}{group.suffix()}",
        title=f"{model}, {group.protocol} protocol: accuracy against share of the training data",
        caption=(
            f"{model}, {group.title}. Small marks: single seeds; line: their mean; band: from the "
            f"lowest to the highest seed, which is no confidence interval.{size} Shares on a log "
            "scale; methods are moved apart a little sideways. Horizontal lines: the untrained "
            f"base model and chance.{left_out(variants, model)}"
        ),
        panels=tuple(
            Plot(titles[curves.column], _panel(curves, fractions, drawn, styles))
            for curves in findings.efficiency[group, model]
        ),
    )


def _panel(
    curves: EfficiencyCurves,
    fractions: Sequence[float],
    drawn: set[str],
    styles: Mapping[str, tuple[str, str]],
) -> Callable[[Axes], None]:
    variants = [variant for variant in curves.scores if variant.method in drawn]

    def draw(axes: Axes) -> None:
        for method in dict.fromkeys(variant.method for variant in variants):
            ours = sorted(
                (v for v in variants if v.method == method), key=lambda v: v.fraction or 0.0
            )
            points = [
                (_place(v, variants), [100 * score for score in curves.scores[v]]) for v in ours
            ]
            draw_curve(axes, points, styles[method], name_of(ours[0]))
        for variant, scores in curves.base.items():
            for score in scores:
                _draw_level(axes, score, "--", name_of(variant))
        if curves.chance is not None:
            _draw_level(axes, curves.chance, ":", "Chance")
        axes.set_xscale("log")
        axes.set_xticks(fractions, [f"{100 * fraction:g}%" for fraction in fractions])
        axes.minorticks_off()
        axes.set_xlim(fractions[0] / 1.25, fractions[-1] * 1.25)
        axes.set_xlabel("Share of the training data (log scale)")
        axes.set_ylabel("Accuracy (%)")

    return draw


def _draw_level(axes: Axes, score: float, dashes: str, label: str) -> None:
    axes.axhline(100 * score, color=INK, linestyle=dashes, linewidth=1.1, label=label)


def _place(variant: Variant, variants: Sequence[Variant]) -> float:
    """Where a variant's marks stand: methods of the same share side by side."""
    beside = [other for other in variants if other.fraction == variant.fraction]
    step = min(1.045, 1.25 ** (1 / len(beside)))
    return (variant.fraction or 0.0) * step ** (beside.index(variant) - (len(beside) - 1) / 2)
