"""The curves that the figures draw: accuracy against the share of the data, and training losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.analysis.columns import Group
from harness.analysis.measurements import Measurements, finite
from harness.analysis.published import Published, PublishedLoss
from harness.analysis.variants import BASE, Variant, variant_of


@dataclass(frozen=True, eq=False)
class EfficiencyCurves:
    """Scores of each seed in one column, for one model, data set and group."""

    column: str
    unit: str | None
    """What the scores count; None of shares (0..1)."""
    lower_is_better: bool
    scores: Mapping[Variant, list[float]]
    """Scores of each trained variant that has any."""
    base: Mapping[Variant, list[float]]
    """Scores of the untrained model."""
    chance: float | None


@dataclass(frozen=True, eq=False)
class LossCurves:
    """Training losses of one model and data set at the largest fraction, in nats per token."""

    model: str
    data: str | None
    """The data set's name, where the grid has several."""
    fraction: float
    epochs: Mapping[Variant, Mapping[int, list[float]]]
    """By epoch (from 0): the loss of each seed."""
    published: list[PublishedLoss]
    validation: Mapping[Variant, Mapping[int, list[float]]] = field(default_factory=dict)
    """The same of the losses on the validation rows, where any were held out."""
    kept: Mapping[Variant, list[int]] = field(default_factory=dict)
    """Of these variants: the epoch of each seed whose weights are saved and scored."""


def efficiency_curves(
    measured: Measurements, group: Group, model: str, data: str | None
) -> list[EfficiencyCurves]:
    """Curves of every average and every benchmark, each where a trained variant has it."""
    curves = []
    mine = measured.on_data(model, data)
    for column in group.columns:
        found = {v: list(measured.seed_scores(v, group, column).values()) for v in mine}
        base = {v: scores for v, scores in found.items() if scores and v.method_name == BASE}
        trained = {v: scores for v, scores in found.items() if scores and v.fraction is not None}
        if trained:
            lower, chance = group.is_lower_better(column), measured.chance(group, column)
            unit = group.unit(column)
            curves.append(EfficiencyCurves(column, unit, lower, trained, base, chance))
    return curves


def loss_curves(
    measured: Measurements, published: Published, model: str, data: str | None
) -> LossCurves | None:
    """Losses at the largest fraction beside the published ones; None where there are none."""
    losses = measured.data.losses
    largest = max(measured.fractions(model, data), default=None)
    if losses.empty or largest is None:
        return None
    chosen = losses[(losses["model"] == model) & (losses["fraction"] == largest)]
    found: dict[Variant, dict[int, list[float]]] = {}
    validation: dict[Variant, dict[int, list[float]]] = {}
    kept: dict[Variant, list[int]] = {}
    numbers = chosen[finite(chosen["loss"])]
    for record in numbers.sort_values(["epoch", "seed"]).to_dict("records"):
        if (variant := variant_of(record)).data != data:
            continue
        epoch, held_out = int(record["epoch"]), record.get("validation_loss")
        found.setdefault(variant, {}).setdefault(epoch, []).append(float(record["loss"]))
        if held_out is not None and held_out == held_out:  # a cell without any has NaN
            validation.setdefault(variant, {}).setdefault(epoch, []).append(float(held_out))
            kept.setdefault(variant, []).extend([epoch] * bool(record["is_kept"]))
    if not found:
        return None
    known = [
        curve
        for curve in published.losses
        if curve.model == model and largest == 1.0 and data is None
    ]
    epochs_of = {variant: found[variant] for variant in measured.cells if variant in found}
    return LossCurves(model, data, largest, epochs_of, known, validation, kept)
