"""The curves that the figures draw: accuracy against the share of the data, and training losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.columns import Group
from harness.analysis.measurements import BASE, Measurements, Variant, finite, variant_of
from harness.analysis.published import Published, PublishedLoss


@dataclass(frozen=True, eq=False)
class EfficiencyCurves:
    """Scores (0..1) of each seed in one column, for one model and group."""

    column: str
    scores: Mapping[Variant, list[float]]
    """Scores of each trained variant that has any."""
    base: Mapping[Variant, list[float]]
    """Scores of the untrained model."""
    chance: float | None


@dataclass(frozen=True, eq=False)
class LossCurves:
    """Training losses of one model at the largest fraction, in nats per token."""

    model: str
    fraction: float
    epochs: Mapping[Variant, Mapping[int, list[float]]]
    """By epoch (from 0): the loss of each seed."""
    published: list[PublishedLoss]


def efficiency_curves(measured: Measurements, group: Group, model: str) -> list[EfficiencyCurves]:
    """Curves of ARC avg and Average, each where a trained variant has it."""
    curves = []
    mine = [variant for variant in measured.cells if variant.model == model]
    for column in ("ARC avg", "Average"):
        found = {v: list(measured.seed_scores(v, group, column).values()) for v in mine}
        base = {v: scores for v, scores in found.items() if scores and v.method_name == BASE}
        trained = {v: scores for v, scores in found.items() if scores and v.fraction is not None}
        if trained:
            chance = measured.chance(group, column)
            curves.append(EfficiencyCurves(column, trained, base, chance))
    return curves


def loss_curves(measured: Measurements, published: Published, model: str) -> LossCurves | None:
    """Losses at the largest fraction beside the published ones; None where there are none."""
    losses = measured.data.losses
    largest = max(measured.fractions(model), default=None)
    if losses.empty or largest is None:
        return None
    chosen = losses[(losses["model"] == model) & (losses["fraction"] == largest)]
    found: dict[Variant, dict[int, list[float]]] = {}
    numbers = chosen[finite(chosen["loss"])]
    for record in numbers.sort_values(["epoch", "seed"]).to_dict("records"):
        epochs = found.setdefault(variant_of(record), {})
        epochs.setdefault(int(record["epoch"]), []).append(float(record["loss"]))
    if not found:
        return None
    known = [curve for curve in published.losses if curve.model == model and largest == 1.0]
    epochs_of = {variant: found[variant] for variant in measured.cells if variant in found}
    return LossCurves(model, largest, epochs_of, known)
