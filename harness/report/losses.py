"""The figure of the training loss per epoch, beside the published curves where there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from harness.analysis.comparisons import name_of
from harness.analysis.measurements import Measurements, Variant, variant_of
from harness.analysis.published import Published
from harness.report.figures import Drawing, Plot, draw_curve, drawn_methods, file_name, left_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_drawing(
    measured: Measurements,
    published: Published,
    model: str,
    styles: Mapping[str, tuple[str, str]],
) -> Drawing | None:
    """Returns the training loss per epoch at the largest share; None where there is none."""
    losses = measured.data.losses
    largest = max(measured.fractions(model), default=None)
    if losses.empty or largest is None:
        return None
    chosen = losses[(losses["model"] == model) & (losses["fraction"] == largest)]
    curves: dict[Variant, dict[int, list[float]]] = {}
    for record in chosen.sort_values(["epoch", "seed"]).to_dict("records"):
        epochs = curves.setdefault(variant_of(record), {})
        epochs.setdefault(int(record["epoch"]), []).append(float(record["loss"]))
    if not curves:
        return None
    variants = list(measured.cells)
    drawn = drawn_methods(variants, model)
    ordered = {v: curves[v] for v in variants if v in curves and v.method in drawn}
    known = [curve for curve in published.losses if curve.model == model and largest == 1.0]
    theirs = {curve.method: curve.values for curve in known}
    num_epochs = 1 + max(epoch for epochs in ordered.values() for epoch in epochs)
    panels = [Plot("All epochs", _loss_panel(ordered, theirs, styles, 0))]
    if num_epochs > 2:
        panels.append(Plot("From epoch 1 on", _loss_panel(ordered, theirs, styles, 1)))
    source = f" Dashed, hollow marks: published ({published.loss_source}" if theirs else ""
    source += "".join(f"; {c.method} {c.note}" for c in known if c.note) + ")." if theirs else ""
    return Drawing(
        name=f"training-loss-{file_name(model)}",
        title=f"{model}: training loss on {100 * largest:g}% of the data",
        caption=(
            f"{model}, trained on {100 * largest:g}% of the training data: mean loss per response "
            "token over each epoch, while it trains. Small marks: single seeds; line: their mean. "
            f"Methods may differ in epochs, as their recipes do.{source}{left_out(variants, model)}"
        ),
        panels=tuple(panels),
    )


def _loss_panel(
    curves: Mapping[Variant, Mapping[int, list[float]]],
    published: Mapping[str, tuple[float, ...]],
    styles: Mapping[str, tuple[str, str]],
    first: int,
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
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
            axes.plot(
                range(first, len(values)),
                values[first:],
                color=colour,
                marker=marker,
                markerfacecolor="none",
                linestyle="--",
                linewidth=1.2,
                label=f"{name_of(variant)}, published",
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Training loss (nats per token)")

    return draw
