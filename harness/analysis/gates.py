"""What prompts do inside the model: gates of the zero-init methods, and shares of attention.

Made from what `harness.methods.zero_init.telemetry` keeps of each training; cells without it have
no lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from harness.analysis.measurements import Measurements, Seed
from harness.analysis.variants import Variant, representatives
from harness.methods import METHODS
from harness.methods.zero_init.telemetry import GATES_FILE, SHARES, SHARES_FILE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class GateCurves:
    """The gates of one cell over its training."""

    variant: Variant
    seed: Seed
    num_seeds: int
    num_other_settings: int
    """Other settings of the method, which are not shown."""
    last: pd.DataFrame
    """(layers, heads): strength after the last step."""
    means: pd.DataFrame
    """(steps, layers): mean |strength| over a layer's heads."""


@dataclass(frozen=True)
class ShareLine:
    """The prompt's share of attention in a variant: means over layers, heads and seeds."""

    variant: Variant
    num_seeds: int
    gate_mean: float
    """Mean |tanh(g)| after the last step; NaN where unknown."""
    gate_max: float
    shares: Mapping[tuple[str, str], float]
    """By quantity (`mass`, `norm`) and time (`before`, `after` training): 0..1, NaN if unknown."""


def gate_curves(measured: Measurements) -> Iterator[GateCurves]:
    """Gates of each model and zero-init method at the largest share of the data.

    One cell stands for a method: of its setting under its registry name where the grid has it, the
    first seed that kept its gates.
    """
    for model in measured.models:
        shown: set[tuple[str, str | None]] = set()
        variants = _variants(measured, model)
        for variant in representatives(variants):
            found = next(iter(_frames(measured, variant, GATES_FILE).items()), None)
            if found is None or (variant.method_name, variant.data) in shown:
                continue
            shown.add((variant.method_name, variant.data))
            seed, gates = found
            last = gates[gates["step"] == gates["step"].max()]
            settings = [
                v
                for v in variants
                if (v.method_name, v.data) == (variant.method_name, variant.data)
            ]
            yield GateCurves(
                variant=variant,
                seed=seed,
                num_seeds=len(measured.cells[variant]),
                num_other_settings=len(settings) - 1,
                last=last.pivot(index="layer", columns="head", values="strength"),
                means=gates.assign(strength=gates["strength"].abs()).pivot_table(
                    index="step", columns="layer", values="strength", aggfunc="mean"
                ),
            )


def share_lines(measured: Measurements) -> list[ShareLine]:
    """Shares of attention of every variant that kept them, at the largest share of the data."""
    lines = []
    cells = measured.data.cells
    for variant in (v for model in measured.models for v in _variants(measured, model)):
        frames = list(_frames(measured, variant, SHARES_FILE).values())
        if not frames:
            continue
        mine = cells[cells["cell_id"].isin(list(measured.cells[variant].values()))]
        gates = float(mine["final_gate_mean_abs"].mean()), float(mine["final_gate_max_abs"].max())
        shares = {}
        for name, when in product(SHARES, ("before", "after")):
            means = [frame[frame["when"] == when][f"{name}_share"].mean() for frame in frames]
            shares[name, when] = float(sum(means) / len(means))
        lines.append(ShareLine(variant, len(frames), *gates, shares))
    return lines


def _variants(measured: Measurements, model: str) -> list[Variant]:
    """Variants of the tables whose methods keep telemetry, registry names first."""
    known = [
        variant
        for variant in measured.table_variants(model)
        if variant.method_name in METHODS and METHODS[variant.method_name].telemetry is not None
    ]
    names = list(dict.fromkeys(variant.method_name for variant in known))
    return sorted(known, key=lambda v: (names.index(v.method_name), v.method != v.method_name))


def _frames(measured: Measurements, variant: Variant, file: str) -> dict[Seed, pd.DataFrame]:
    """A variant's frames by seed, of the cells that have one."""
    found = {}
    for seed, cell_id in measured.cells[variant].items():
        frame = measured.data.traces(cell_id, file)
        if frame is not None and len(frame):
            found[seed] = frame
    return found
