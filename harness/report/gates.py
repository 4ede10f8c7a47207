"""The figures of gates, and the table of the shares of attention that prompts take."""

from __future__ import annotations

from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from harness.analysis.findings import Findings
from harness.analysis.gates import GateCurves
from harness.analysis.variants import name_of
from harness.report.figures import Drawing, Plot, file_name, place_name
from harness.report.numbers import number, percent, share_text
from harness.report.render import Table, blocks

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

MEANING = (
    "A gate's strength scales what a head takes from its prompt: tanh(g), or g itself where the "
    "grid sets gate_activation: identity. At 0, where every gate begins, the head is the base "
    "model's. Below 0 the prompt's part is subtracted; as its values may have either sign, the "
    "gate's sign alone says little."
)
"""Stands once, above the figures."""
MOST_TICKS = 12
"""Labels on an axis of layers or heads."""


def share_table(findings: Findings) -> list[Table]:
    """The prompts' share of attention before and after training, where any was kept."""
    lines = [
        [
            *(line.variant.model, findings.measured.row_name(line.variant), str(line.num_seeds)),
            *(number(gate, ".3f") for gate in (line.gate_mean, line.gate_max)),
            *(percent(share, 1) for share in line.shares.values()),
        ]
        for line in findings.shares
    ]
    fractions = {share_text(line.variant.fraction) for line in findings.shares}
    table = Table(
        name="prompt-shares",
        title="The prompt's share of attention",
        subtitle=f"{fractions.pop()} of the training data" if len(fractions) == 1 else "",
        header=(
            *("Model", "Method", "Seeds", "Mean |gate|", "Max |gate|"),
            *("Weights before", "Weights after", "Output before", "Output after"),
        ),
        rows=blocks(lines),
        caption=(
            "Means over layers, heads and seeds (Max |gate|: the largest of all), shares in "
            "percent, on the first 16 training examples of each cell cut to 64 tokens. Weights: "
            "the prompt's share of the attention weights, |s| / (1 + |s|) for a gate of strength "
            "s, and the sum over the prompt's rows for one joint softmax. Output: |p| / (|w| + "
            "|p|), where a head's output is p from the prompt and w from the tokens.",
        ),
        num_text_columns=2,
    )
    return [table] if lines else []


def gate_drawing(curves: GateCurves) -> Drawing:
    """Gates after the last step, and their course over the steps."""
    variant, count = curves.variant, curves.num_seeds
    name = name_of(variant)
    which = f"Seed {curves.seed}" + f" of {count}; only this one is drawn" * (count > 1)
    others = curves.num_other_settings
    course = partial(_draw_means, means=curves.means)
    more = f" Not drawn, but in the table below: {others} other settings of the method."
    return Drawing(
        name=f"gates-{place_name(variant.model, variant.data)}-{file_name(variant.method)}",
        title=f"{variant.model}: gates of {name}",
        caption=(
            f"{variant.model}, {name}, {share_text(variant.fraction)} of the training data. "
            f"{which}.{more if others else ''} Left: the strength of every gate "
            "after the last step; the colours reach to the largest of them. Right: the mean of "
            "|strength| over a layer's heads, at the steps that were read."
        ),
        panels=(
            Plot("Gates after the last step", partial(_draw_map, table=curves.last)),
            Plot("Mean |strength| of each layer over the steps", course),
        ),
    )


def _draw_map(axes: Axes, *, table: pd.DataFrame) -> None:
    from matplotlib import colormaps

    values = table.to_numpy()
    limit = max((float(value) for value in abs(values).ravel() if isfinite(value)), default=0.0)
    limit = limit or 1.0
    # So few colours that vector formats hold the colour bar as shapes, not as a picture.
    colours = colormaps["RdBu_r"].resampled(41)
    mesh = axes.pcolormesh(values, cmap=colours, vmin=-limit, vmax=limit, edgecolors="face")
    axes.set_axisbelow(True)
    axes.set_xticks(*_ticks(table.columns))
    axes.set_yticks(*_ticks(table.index))
    axes.tick_params(length=0)
    axes.set_xlabel("Head")
    axes.set_ylabel("Layer")
    bar = axes.figure.colorbar(mesh, ax=axes, label="Strength")
    assert bar.solids is not None
    bar.solids.set_edgecolor("face")  # else viewers leave light lines between the colours


def _draw_means(axes: Axes, *, means: pd.DataFrame) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    layers = means.columns.to_numpy()
    number = len(layers)
    # One colour per layer, none so dark or so light that it is lost on the page.
    span = [0.22 + 0.62 * place / max(1, number - 1) for place in range(number)]
    colours = ListedColormap([colormaps["plasma"](place) for place in span])
    for place, layer in enumerate(layers):
        axes.plot(means.index, means[layer], color=colours(place), linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Optimizer step")
    axes.set_ylabel("Mean |strength| over heads")
    norm = BoundaryNorm(range(number + 1), number)
    places, texts = _ticks(layers)
    bar = axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="Layer")
    bar.set_ticks(places, labels=texts)
    bar.ax.tick_params(length=0)


def _ticks(names: np.ndarray | Any) -> tuple[list[float], list[str]]:
    """Middle of each column or row and its name, thinned where there are many."""
    step = -(-len(names) // MOST_TICKS)
    places = range(0, len(names), step)
    return [place + 0.5 for place in places], [str(names[place]) for place in places]
