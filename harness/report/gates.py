"""What the prompts do inside the model: gates of the zero-init methods, and shares of attention.

Made from what `harness.methods.gate_telemetry` keeps of each training; cells without it show
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.comparisons import name_of, representatives, row_name
from harness.analysis.measurements import Measurements, Seed, Variant
from harness.methods import METHODS
from harness.methods.zero_init.telemetry import GATES_FILE, SHARES, SHARES_FILE
from harness.report.figures import Drawing, Plot, file_name
from harness.report.numbers import MISSING, percent, share_text
from harness.report.render import Row, Table, row

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MEANING = (
    "A gate's strength scales what a head takes from its prompt: tanh(g), or g itself where the "
    "grid sets gate_activation: identity. At 0, where every gate begins, the head is the base "
    "model's. Below 0 the prompt's part is subtracted; as its values may have either sign, the "
    "gate's sign alone says little."
)
"""Stands once, above the figures."""
MOST_TICKS = 12
"""Labels on an axis of layers or heads."""


def gate_drawings(measured: Measurements) -> Iterator[Drawing]:
    """Yields the gates of each model and zero-init method at the largest share of the data.

    One setting per method is drawn, that under its registry name where the grid has it.
    """
    for model in measured.models:
        shown: set[str] = set()
        for variant in representatives(_variants(measured, model)):
            found = next(iter(_frames(measured, variant, GATES_FILE).items()), None)
            if found is not None and variant.method_name not in shown:
                shown.add(variant.method_name)
                yield _drawing(measured, variant, *found)


def share_table(measured: Measurements) -> Table | None:
    """Returns the prompts' share of attention before and after training; None without any."""
    rows: list[Row] = []
    for model in measured.models:
        starts = True
        variants = _variants(measured, model)
        for variant in variants:
            frames = _frames(measured, variant, SHARES_FILE)
            if frames:
                numbers = _share_numbers(measured, variant, list(frames.values()))
                rows.append(
                    row(
                        model if starts else "",
                        row_name(variant, variants),
                        str(len(frames)),
                        *numbers,
                        starts_block=starts,
                    )
                )
                starts = False
    if not rows:
        return None
    return Table(
        name="prompt-shares",
        title="The prompt's share of attention",
        subtitle=_subtitle(measured),
        header=(
            *("Model", "Method", "Seeds", "Mean |gate|", "Max |gate|"),
            *("Weights before", "Weights after", "Output before", "Output after"),
        ),
        rows=tuple(rows),
        caption=(
            "Means over layers, heads and seeds (Max |gate|: the largest of all), shares in "
            "percent, on the first 16 training examples of each cell cut to 64 tokens. Weights: "
            "the prompt's share of the attention weights, |s| / (1 + |s|) for a gate of strength "
            "s, and the sum over the prompt's rows for one joint softmax. Output: |p| / (|w| + "
            "|p|), where a head's output is p from the prompt and w from the words.",
        ),
        num_text_columns=2,
    )


def _subtitle(measured: Measurements) -> str:
    shares = {share_text(max(measured.fractions(m), default=None)) for m in measured.models} - {""}
    return f"{shares.pop()} of the training data" if len(shares) == 1 else ""


def _variants(measured: Measurements, model: str) -> list[Variant]:
    """Returns the variants of the tables whose methods keep a trace, own names first."""
    known = [
        variant
        for variant in measured.table_variants(model)
        if variant.method_name in METHODS and METHODS[variant.method_name].telemetry is not None
    ]
    names = list(dict.fromkeys(variant.method_name for variant in known))
    return sorted(known, key=lambda v: (names.index(v.method_name), v.method != v.method_name))


def _frames(measured: Measurements, variant: Variant, file: str) -> dict[Seed, pd.DataFrame]:
    """Returns a variant's frames by seed, of the cells that have one."""
    found = {}
    for seed, cell_id in measured.cells[variant].items():
        frame = measured.data.traces(cell_id, file)
        if frame is not None and len(frame):
            found[seed] = frame
    return found


def _share_numbers(
    measured: Measurements, variant: Variant, frames: Sequence[pd.DataFrame]
) -> Iterator[str]:
    cells = measured.data.cells
    mine = cells[cells["cell_id"].isin(list(measured.cells[variant].values()))]
    for gates in (mine["final_gate_mean_abs"].mean(), mine["final_gate_max_abs"].max()):
        yield MISSING if gates != gates else f"{gates:.3f}"
    for name in SHARES:
        for when in ("before", "after"):
            values = [frame[frame["when"] == when][f"{name}_share"].mean() for frame in frames]
            mean = sum(values) / len(values)
            yield MISSING if mean != mean else percent(mean, 1)


def _drawing(measured: Measurements, variant: Variant, seed: Seed, gates: pd.DataFrame) -> Drawing:
    num_seeds = len(measured.cells[variant])
    which = f"Seed {seed}" + (f" of {num_seeds}; only this one is drawn" if num_seeds > 1 else "")
    settings = [v for v in _variants(measured, variant.model) if v != variant]
    count = sum(v.method_name == variant.method_name for v in settings)
    more = f" Not drawn, but in the table below: {count} other settings of the method."
    return Drawing(
        name=f"gates-{file_name(variant.model)}-{file_name(variant.method)}",
        title=f"{variant.model}: gates of {name_of(variant)}",
        caption=(
            f"{variant.model}, {name_of(variant)}, {share_text(variant.fraction)} of the training "
            f"data. {which}.{more if count else ''} Left: the strength of every gate after the "
            "last step; the colours reach to the largest of them. Right: the mean of |strength| "
            "over a layer's heads, at the steps that were read."
        ),
        panels=(
            Plot("Gates after the last step", _heat_map(gates)),
            Plot("Mean |strength| of each layer over the steps", _curves(gates)),
        ),
    )


def _heat_map(gates: pd.DataFrame) -> Callable[[Axes], None]:
    last = gates[gates["step"] == gates["step"].max()]
    table = last.pivot(index="layer", columns="head", values="strength")

    def draw(axes: Axes) -> None:
        from matplotlib import colormaps

        values = table.to_numpy()
        limit = float(abs(values).max()) or 1.0
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

    return draw


def _curves(gates: pd.DataFrame) -> Callable[[Axes], None]:
    means = gates.assign(strength=gates["strength"].abs()).pivot_table(
        index="step", columns="layer", values="strength", aggfunc="mean"
    )

    def draw(axes: Axes) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import BoundaryNorm

        layers = means.columns.to_numpy()
        colours = _layer_colours(len(layers))
        for place, layer in enumerate(layers):
            axes.plot(means.index, means[layer], color=colours(place), linewidth=1.6)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Optimizer step")
        axes.set_ylabel("Mean |strength| over heads")
        norm = BoundaryNorm(range(len(layers) + 1), len(layers))
        places, texts = _ticks(layers)
        bar = axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="Layer")
        bar.set_ticks(places, labels=texts)
        bar.ax.tick_params(length=0)

    return draw


def _layer_colours(number: int) -> Colormap:
    """Returns one colour per layer, none so dark or so light that it is lost on the page."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    span = [0.22 + 0.62 * place / max(1, number - 1) for place in range(number)]
    return ListedColormap([colormaps["plasma"](place) for place in span])


def _ticks(names: np.ndarray | Any) -> tuple[list[float], list[str]]:
    """Returns the middle of each column or row and its name, thinned where there are many."""
    step = -(-len(names) // MOST_TICKS)
    places = range(0, len(names), step)
    return [place + 0.5 for place in places], [str(names[place]) for place in places]
