"""What limits how the numbers of a grid may be read, as far as its own data tell."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.columns import COLUMNS, Group
from harness.analysis.measurements import BASE, Measurements
from harness.analysis.published import Published


@dataclass(frozen=True)
class Cautions:
    """The facts that a reader must know; a report puts them into words."""

    seeds: tuple[int, int] | None
    """The fewest and the most trained seeds behind a score of the tables; None without scores."""
    num_open: int
    """Planned cells that are not done."""
    num_cells: int
    training_notes: tuple[tuple[str, str], ...]
    """Cell label and what is to be known of its training, such as a loss that exploded."""
    is_demo: bool
    """Whether all benchmarks are those of the embedded world."""
    has_limit: bool
    """Whether any score is of the first items of its tasks only."""
    at_chance: tuple[tuple[str, Group, tuple[str, ...]], ...]
    """Model, group and the columns in which no row is more than two standard errors above chance.
    """
    has_published: bool
    """Whether the paper has rows of any model."""


def find_cautions(measured: Measurements, published: Published) -> Cautions:
    """What limits how the numbers may be read."""
    cells = measured.data.cells
    noted = cells.reindex(columns=["label", "training_note"]).dropna()
    settings = {setting for group in measured.groups for setting in group.settings.values()}
    at_chance = [
        (model, group, tuple(c for c in COLUMNS if _is_at_chance(measured, group, model, c)))
        for group in measured.groups
        for model in measured.models
    ]
    return Cautions(
        seeds=_seeds(measured),
        num_open=int((cells["status"] != "done").sum()),
        num_cells=len(cells),
        training_notes=tuple(noted.itertuples(index=False, name=None)),
        is_demo=bool(settings)
        and all(measured.benchmarks[each.benchmark].world == "demo" for each in settings),
        has_limit=any(setting.limit is not None for setting in settings),
        at_chance=tuple(entry for entry in at_chance if entry[2]),
        has_published=bool(published.models() & set(measured.models)),
    )


def _seeds(measured: Measurements) -> tuple[int, int] | None:
    counts = {
        len(measured.seed_scores(variant, group, column))
        for group in measured.groups
        for column in group.settings
        for variant in measured.tabled
        if variant.method_name != BASE
    } - {0}
    return (min(counts), max(counts)) if counts else None


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
