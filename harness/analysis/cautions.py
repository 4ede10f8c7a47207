"""What limits how the numbers of a grid may be read: few seeds, and scores that are at chance."""

from __future__ import annotations

from harness.analysis.columns import COLUMNS, Group
from harness.analysis.measurements import BASE, Measurements


def seeds_behind(measured: Measurements) -> tuple[int, int] | None:
    """The fewest and the most trained seeds behind a score of the tables; None without scores."""
    counts = {
        len(measured.seed_scores(variant, group, column))
        for group in measured.groups
        for column in group.settings
        for variant in measured.tabled
        if variant.method_name != BASE
    } - {0}
    return (min(counts), max(counts)) if counts else None


def columns_at_chance(measured: Measurements) -> list[tuple[str, Group, list[str]]]:
    """Model, group and the columns in which no row is two standard errors above chance."""
    found = [
        (model, group, [c for c in COLUMNS if _is_at_chance(measured, group, model, c)])
        for group in measured.groups
        for model in measured.models
    ]
    return [entry for entry in found if entry[2]]


def _is_at_chance(measured: Measurements, group: Group, model: str, column: str) -> bool:
    chance = measured.chance(group, column)
    found = [measured.estimate(v, group, column) for v in measured.table_variants(model)]
    estimates = [estimate for estimate in found if estimate is not None]
    return bool(estimates) and all(
        chance is not None
        and estimate.stderr is not None
        and estimate.value - chance <= 2 * estimate.stderr
        for estimate in estimates
    )
