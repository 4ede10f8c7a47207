"""The figure of the training loss per epoch, beside the published curves where there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.curves import LossCurves
from harness.analysis.measurements import Measurements, Variant, name_of
from harness.report.figures import Drawing, Plot, draw_curve, drawn_methods, file_name, left_out
from harness.report.numbers import share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_drawing(
    found: LossCurves, measured: Measurements, styles: Mapping[str, tuple[str, str]]
) -> Drawing:
    """Training loss per epoch of each method, beside the published curves where there are any."""
    model, variants, published = found.model, list(measured.cells), found.published
    drawn = drawn_methods(variants, model)
    curves = {v: epochs for v, epochs in found.epochs.items() if v.method in drawn}
    theirs = {curve.method: curve.values for curve in published}
    num_epochs = 1 + max(epoch for epochs in curves.values() for epoch in epochs)
    panels = [Plot("All epochs", _loss_panel(curves, theirs, styles, 0))]
    if num_epochs > 2:
        panels.append(Plot("From epoch 1 on", _loss_panel(curves, theirs, styles, 1)))
    source = ""
    if published:
        notes = "".join(f"; {curve.method} {curve.note}" for curve in published if curve.note)
        source = f" Dashed, hollow marks: published ({found.published_source}{notes})."
    share = share_text(found.fraction)
    return Drawing(
        name=f"training-loss-{file_name(model)}",
        title=f"{model}: training loss on {share} of the data",
        caption=(
            f"{model}, trained on {share} of the training data: mean loss per response "
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
            look: dict[str, Any] = {"color": colour, "marker": marker, "markerfacecolor": "none"}
            look |= {"linewidth": 1.2, "label": f"{name_of(variant)}, published"}
            axes.plot(range(first, len(values)), values[first:], "--", **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Training loss (nats per token)")

    return draw
