"""The figures of curves: accuracy against the share of the training data, and loss per epoch.

The paper's Figures 2 and 3 show the ARC average so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import LOWER_IS_BETTER, Group
from harness.analysis.curves import EfficiencyCurves, LossCurves
from harness.analysis.findings import Findings
from harness.analysis.scales import scale_of
from harness.analysis.variants import Variant, name_of
from harness.report.figures import (
    INK,
    MOST_METHODS,
    Drawing,
    Plot,
    Styles,
    apart,
    draw_curve,
    drawn_methods,
    legend_name,
    place_name,
)
from harness.report.numbers import scaled, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def efficiency_drawings(
    findings: Findings, group: Group, model: str, data: str | None, styles: Styles
) -> list[Drawing]:
    """Scores of each seed and their mean against the share of the data: averages, and benchmarks.

    Where there are averages they stand in a figure of their own, before that of the benchmarks;
    the latter is drawn of several fractions alone.
    """
    curves = findings.efficiency[group, model, data]
    several = len(findings.measured.fractions(model, data)) > 1
    averages = [one for one in curves if group.is_average(one.column)]
    others = [one for one in curves if several and not group.is_average(one.column)]
    name = f"sample-efficiency-{place_name(model, data)}{group.suffix()}"
    found = []
    for mark, shown in (("", averages), ("-each" if averages else "", others)):
        if shown:
            drawing = _efficiency(findings, group, model, data, styles, shown)
            found.append(replace(drawing, name=name + mark))
    return found


def _efficiency(
    findings: Findings,
    group: Group,
    model: str,
    data: str | None,
    styles: Styles,
    shown: Sequence[EfficiencyCurves],
) -> Drawing:
    measured, where = findings.measured, model + (f" on {data}" if data is not None else "")
    drawn, left_out = drawn_methods(measured.on_data(model, data), model)
    fractions = measured.fractions(model, data)
    draw = partial(_draw_efficiency, fractions=fractions, drawn=drawn, styles=styles)
    of = "accuracy" if all(curves.unit is None for curves in shown) else "scores"
    return Drawing(
        name="",
        title=f"{where}, {group.protocol} protocol: {of} against share of the training data",
        caption=(
            f"{where}, {group.title}. Small marks: single seeds; line: their mean; band: from the "
            "lowest to the highest seed, which is no confidence interval."
            f"{_error_size(findings, group, model, data, shown[0])} Shares on a log "
            f"scale; methods are moved apart a little sideways.{_levels(shown)}{left_out}"
        ),
        panels=tuple(Plot(curves.column, partial(draw, curves=curves)) for curves in shown),
    )


def _levels(shown: Sequence[EfficiencyCurves]) -> str:
    """What the horizontal lines are, where there are any."""
    known = {
        "the untrained base model": any(curves.base for curves in shown),
        "chance": any(curves.chance is not None for curves in shown),
    }
    names = [name for name, is_drawn in known.items() if is_drawn]
    return f" Horizontal lines: {' and '.join(names)}." if names else ""


def _error_size(
    findings: Findings, group: Group, model: str, data: str | None, curves: EfficiencyCurves
) -> str:
    """How large a standard error of the first panel is."""
    measured = findings.measured
    trained = [v for v in measured.table_variants(model) if v in curves.scores and v.data == data]
    estimates = [measured.estimate(variant, group, curves.column) for variant in trained]
    errors = [one.stderr for one in estimates if one is not None and one.stderr is not None]
    if not errors:
        return ""
    scale = scale_of(curves.unit, errors, 1)
    one_seed = all(one is None or one.scope == "models" for one in estimates)
    of = "items alone" if one_seed else "items and seeds"
    return (
        f" At the largest share one standard error of a mean's {curves.column} ({of}) "
        f"is {scaled(min(errors), scale)} to {scaled(max(errors), scale)} "
        f"{curves.unit or 'points'}."
    )


def _draw_efficiency(
    axes: Axes,
    *,
    curves: EfficiencyCurves,
    fractions: Sequence[float],
    drawn: set[str],
    styles: Styles,
) -> None:
    factor = scale_of(curves.unit).factor
    variants = [variant for variant in curves.scores if variant.method in drawn]
    for method in dict.fromkeys(variant.method for variant in variants):
        ours = sorted((v for v in variants if v.method == method), key=lambda v: v.fraction or 0.0)
        points = [
            (_place(v, variants), [factor * score for score in curves.scores[v]]) for v in ours
        ]
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
            factor * score, color=INK, linestyle=dashes, linewidth=1.1, label=legend_name(label)
        )
    axes.set_xscale("log")
    ticks = [fractions[index] for index in apart(fractions, 0.09)]
    axes.set_xticks(ticks, [f"{100 * fraction:g}%" for fraction in ticks])
    axes.minorticks_off()
    axes.set_xlim(fractions[0] / 1.25, fractions[-1] * 1.25)
    axes.set_xlabel("Share of the training data (log scale)")
    lower = f" ({LOWER_IS_BETTER} lower is better)" if curves.lower_is_better else ""
    axes.set_ylabel(f"{curves.unit or 'Accuracy (%)'}{lower}")


def _place(variant: Variant, variants: Sequence[Variant]) -> float:
    """Where a variant's marks stand: methods of the same share side by side."""
    beside = [other for other in variants if other.fraction == variant.fraction]
    step = min(1.045, 1.25 ** (1 / len(beside)))
    return (variant.fraction or 0.0) * step ** (beside.index(variant) - (len(beside) - 1) / 2)


def loss_drawing(findings: Findings, found: LossCurves, styles: Styles) -> Drawing | None:
    """Training loss per epoch of each method, beside the published curves where there are any."""
    model, published = found.model, found.published
    where = model + (f" on {found.data}" if found.data is not None else "")
    drawn, left_out = drawn_methods(findings.measured.on_data(model, found.data), model)
    curves = {v: epochs for v, epochs in found.epochs.items() if v.method in drawn}
    if not curves:
        return None
    theirs = {curve.method: curve.values for curve in published}
    held_out = {v: found.validation[v] for v in curves if v in found.validation}
    draw = partial(
        _draw_losses, curves=curves, validation=held_out, published=theirs, styles=styles
    )
    num_epochs = 1 + max(epoch for epochs in curves.values() for epoch in epochs)
    if num_epochs == 1 and len({variant.method for variant in curves}) > MOST_METHODS:
        return None  # a column of points under a hundred names
    panels = [Plot("All epochs", partial(draw, first=0))]
    if num_epochs > 2:
        panels.append(Plot("From epoch 1 on", partial(draw, first=1)))
    source = ""
    if published:
        notes = "".join(f"; {curve.method} {curve.note}" for curve in published if curve.note)
        source = f" Dashed, hollow marks: published ({findings.published.loss_source}{notes})."
    if held_out:
        source += (
            " Dashed, without marks: loss on the validation rows after each epoch, in evaluation "
            "mode, mean of the seeds."
        )
    share = share_text(found.fraction)
    return Drawing(
        name=f"training-loss-{place_name(model, found.data)}",
        title=f"{where}: training loss on {share} of the data",
        caption=(
            f"{where}, trained on {share} of the training data: mean loss per response "
            "token over each epoch, while it trains. Small marks: single seeds; line: their mean. "
            f"Methods may differ in epochs, as their recipes do.{source}{left_out}"
        ),
        panels=tuple(panels),
    )


def _draw_losses(
    axes: Axes,
    *,
    curves: Mapping[Variant, Mapping[int, list[float]]],
    validation: Mapping[Variant, Mapping[int, list[float]]],
    published: Mapping[str, tuple[float, ...]],
    styles: Styles,
    first: int,
) -> None:
    from matplotlib.ticker import MaxNLocator

    for variant, epochs in curves.items():
        points = [(float(e), values) for e, values in epochs.items() if e >= first]
        if points:
            draw_curve(axes, points, styles[variant.method], name_of(variant))
    for variant, epochs in validation.items():
        means = [(e, sum(losses) / len(losses)) for e, losses in epochs.items() if e >= first]
        label = legend_name(f"{name_of(variant)}, validation")
        axes.plot(*zip(*means, strict=True), "--", color=styles[variant.method][0], label=label)
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
    axes.set_ylabel(f"{'Loss' if validation else 'Training loss'} (nats per token)")
