"""The figures of curves: accuracy against the share of the training data, and loss per epoch.

The paper's Figures 2 and 3 show the ARC average so; the Average of all benchmarks is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import Group
from harness.analysis.curves import EfficiencyCurves, LossCurves
from harness.analysis.findings import Findings
from harness.analysis.measurements import BASE, Variant, name_of
from harness.report.figures import (
    INK,
    Drawing,
    Plot,
    Styles,
    apart,
    draw_curve,
    drawn_methods,
    file_name,
    legend_name,
)
from harness.report.numbers import share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def efficiency_drawing(findings: Findings, group: Group, model: str, styles: Styles) -> Drawing:
    """Accuracy of each seed and their mean against the share of the data."""
    measured = findings.measured
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
    drawn, left_out = drawn_methods(list(measured.cells), model)
    if not all(other.is_paper for other in measured.groups):
        left_out += " Benchmarks outside the paper's tables are in their table alone."
    draw = partial(
        _draw_efficiency, fractions=measured.fractions(model), drawn=drawn, styles=styles
    )
    return Drawing(
        name=f"sample-efficiency-{file_name(model)}{group.suffix()}",
        title=f"{model}, {group.protocol} protocol: accuracy against share of the training data",
        caption=(
            f"{model}, {group.title}. Small marks: single seeds; line: their mean; band: from the "
            f"lowest to the highest seed, which is no confidence interval.{size} Shares on a log "
            "scale; methods are moved apart a little sideways. Horizontal lines: the untrained "
            f"base model and chance.{left_out}"
        ),
        panels=tuple(
            Plot(titles[curves.column], partial(draw, curves=curves))
            for curves in findings.efficiency[group, model]
        ),
    )


def _draw_efficiency(
    axes: Axes,
    *,
    curves: EfficiencyCurves,
    fractions: Sequence[float],
    drawn: set[str],
    styles: Styles,
) -> None:
    variants = [variant for variant in curves.scores if variant.method in drawn]
    for method in dict.fromkeys(variant.method for variant in variants):
        ours = sorted((v for v in variants if v.method == method), key=lambda v: v.fraction or 0.0)
        points = [(_place(v, variants), [100 * score for score in curves.scores[v]]) for v in ours]
        draw_curve(axes, points, styles[method], name_of(ours[0]))
    levels = [
        (score, "--", name_of(variant))
        for variant, scores in curves.base.items()
        for score in scores
    ]
    if curves.chance is not None:
        levels.append((curves.chance, ":", "Chance"))
    for score, dashes, label in levels:
        axes.axhline(
            100 * score, color=INK, linestyle=dashes, linewidth=1.1, label=legend_name(label)
        )
    axes.set_xscale("log")
    ticks = [fractions[index] for index in apart(fractions, 0.09)]
    axes.set_xticks(ticks, [f"{100 * fraction:g}%" for fraction in ticks])
    axes.minorticks_off()
    axes.set_xlim(fractions[0] / 1.25, fractions[-1] * 1.25)
    axes.set_xlabel("Share of the training data (log scale)")
    axes.set_ylabel("Accuracy (%)")


def _place(variant: Variant, variants: Sequence[Variant]) -> float:
    """Where a variant's marks stand: methods of the same share side by side."""
    beside = [other for other in variants if other.fraction == variant.fraction]
    step = min(1.045, 1.25 ** (1 / len(beside)))
    return (variant.fraction or 0.0) * step ** (beside.index(variant) - (len(beside) - 1) / 2)


def loss_drawing(findings: Findings, found: LossCurves, styles: Styles) -> Drawing | None:
    """Training loss per epoch of each method, beside the published curves where there are any."""
    model, published = found.model, found.published
    drawn, left_out = drawn_methods(list(findings.measured.cells), model)
    curves = {v: epochs for v, epochs in found.epochs.items() if v.method in drawn}
    if not curves:
        return None
    theirs = {curve.method: curve.values for curve in published}
    draw = partial(_draw_losses, curves=curves, published=theirs, styles=styles)
    num_epochs = 1 + max(epoch for epochs in curves.values() for epoch in epochs)
    panels = [Plot("All epochs", partial(draw, first=0))]
    if num_epochs > 2:
        panels.append(Plot("From epoch 1 on", partial(draw, first=1)))
    source = ""
    if published:
        notes = "".join(f"; {curve.method} {curve.note}" for curve in published if curve.note)
        source = f" Dashed, hollow marks: published ({findings.published.loss_source}{notes})."
    share = share_text(found.fraction)
    return Drawing(
        name=f"training-loss-{file_name(model)}",
        title=f"{model}: training loss on {share} of the data",
        caption=(
            f"{model}, trained on {share} of the training data: mean loss per response "
            "token over each epoch, while it trains. Small marks: single seeds; line: their mean. "
            f"Methods may differ in epochs, as their recipes do.{source}{left_out}"
        ),
        panels=tuple(panels),
    )


def _draw_losses(
    axes: Axes,
    *,
    curves: Mapping[Variant, Mapping[int, list[float]]],
    published: Mapping[str, tuple[float, ...]],
    styles: Styles,
    first: int,
) -> None:
    from matplotlib.ticker import MaxNLocator

    for variant, epochs in curves.items():
        points = [(float(e), values) for e, values in epochs.items() if e >= first]
        if points:
            draw_curve(axes, points, styles[variant.method], name_of(variant))
    for variant in curves:
        values = published.get(variant.method_name)
        if values is None or variant.method != variant.method_name:
            continue
        colour, marker = styles[variant.method]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markerfacecolor": "none"}
        look |= {"linewidth": 1.2, "label": f"{name_of(variant)}, published"}
        axes.plot(range(first, len(values)), values[first:], "--", **look)
    shown = {epoch for of_seeds in curves.values() for epoch in of_seeds if epoch >= first}
    if len(shown) == 1:
        axes.set_xticks(list(shown))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Training loss (nats per token)")
