"""Does another picture change the answers? What each training measured of it, by variant."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.measurements import Measurements
from harness.analysis.variants import Variant
from harness.records.picture_effect import CHANGES, EFFECT, does_nothing


@dataclass(frozen=True)
class EffectLine:
    """What another picture changes of a variant's answers, over its seeds."""

    variant: Variant
    num_seeds: int
    effect: float
    """Mean absolute change of a label token's log-likelihood, in nats."""
    least_effect: float
    """Of all seeds."""
    changes: float
    """Share (0..1) of the examples of which a most likely label token changes."""
    num_idle: int
    """Seeds in which pictures do nothing."""


def effect_lines(measured: Measurements) -> list[EffectLine]:
    """Lines of the variants of the tables that were trained with pictures."""
    lines = []
    cells = measured.data.cells.reindex(columns=["cell_id", EFFECT, CHANGES])
    for variant in measured.tabled:
        mine = cells[cells["cell_id"].isin(list(measured.cells[variant].values()))].dropna()
        if mine.empty:
            continue
        effects, changes = (mine[name].astype(float) for name in (EFFECT, CHANGES))
        lines.append(
            EffectLine(
                variant,
                len(mine),
                float(effects.mean()),
                float(effects.min()),
                float(changes.mean()),
                sum(map(does_nothing, effects, changes)),
            )
        )
    return lines
