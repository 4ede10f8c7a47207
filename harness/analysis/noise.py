"""The noise floor: how far a score moves when one and the same thing is trained again.

Of R trainings of one configuration the floor is the largest difference between two of them: one
number that was seen to come of nothing. It is no test. A new pair of the same kind exceeds the one
difference of R = 2 half of the time (the two are exchangeable), so that a difference above the
floor may still be noise, while one below it is not told from noise. A 95% bound would be
t(0.975, R - 1) · √2 · s, with s the standard deviation over the trainings; at R = 2 that is 12.7
times the difference itself, and says nothing. Sources of variance: Bouthillier et al., 2103.03098.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from harness.analysis.cell_scores import CellScores
from harness.analysis.columns import Group, is_missing
from harness.analysis.comparisons import Comparison
from harness.analysis.frames import NOISE, ReportInput
from harness.analysis.measurements import Measurements
from harness.analysis.variants import BASE, Variant, name_of, variant_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NoiseRuns:
    """The trainings of one configuration, as cells."""

    variant: Variant
    seed: int
    same: tuple[str, ...]
    """Cells of this seed: the study's own one, then its repeats."""
    other: str | None
    """The cell of another seed."""
    weights: tuple[str | None, ...]
    """SHA-256 of the trained tensors of `same`; None where it is not known."""

    @property
    def same_weights(self) -> bool | None:
        """Whether the repeats have the same bits; None where that is not known."""
        if len(self.weights) < 2 or None in self.weights:
            return None
        return len(set(self.weights)) == 1


@dataclass(frozen=True)
class Floor:
    """The noise floor of a model in one column; differences in the unit of the scores (0..1)."""

    runs: NoiseRuns
    group: Group
    column: str
    scores: tuple[float, ...]
    """Of the trainings with the same seed."""
    other: float | None
    """Of the training with another seed."""

    @property
    def same_seed(self) -> float | None:
        """The largest difference between two trainings with the same seed."""
        pairs = combinations(self.scores, 2)
        return max((abs(a - b) for a, b in pairs), default=None)

    @property
    def same_seed_sd(self) -> float | None:
        """Standard deviation over the trainings with the same seed."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def other_seed(self) -> float | None:
        """How far the training with another seed is from that of the study."""
        if self.other is None or not self.scores:
            return None
        return abs(self.other - self.scores[0])

    @property
    def largest(self) -> float | None:
        """The larger of the two: the floor of a difference of two trainings."""
        return max((x for x in (self.same_seed, self.other_seed) if x is not None), default=None)

    def under(self, num_seeds: int, num_trained: int = 2) -> float | None:
        """The floor of a difference of means over `num_seeds` trainings each.

        The trainings' noise is independent, so that it shrinks by √k; of two sides one of which is
        not trained (`num_trained` 1: the base model) it has half the variance.
        """
        if self.largest is None:
            return None
        return self.largest * math.sqrt(num_trained / 2 / num_seeds)


Floors = Mapping[tuple[Group, str, str], Floor]
"""By group, model and column."""


def noise_runs(cells: pd.DataFrame) -> list[NoiseRuns]:
    """The trainings of each configuration that was trained again, of the whole cells frame."""
    if NOISE not in cells:
        return []
    rows: list[Mapping[str, Any]] = cells.to_dict("records")
    repeats: dict[tuple[Variant, int], list[Mapping[str, Any]]] = {}
    others: dict[Variant, Mapping[str, Any]] = {}
    for row in rows:
        if row[NOISE] == "repeat":
            repeats.setdefault((variant_of(row), int(row["seed"])), []).append(row)
        elif row[NOISE] == "seed":
            others[variant_of(row)] = row
    found = []
    for (variant, seed), again in repeats.items():
        own = [row for row in rows if variant_of(row) == variant and is_missing(row[NOISE])]
        first = [row for row in own if row["seed"] == seed]
        # Where the block has another seed, its next one is no cell of its own: see `grid.noise`.
        other = others.get(variant) or next((row for row in own if row["seed"] != seed), None)
        same = [*first, *again]
        hashes = (row.get("weights_sha256") for row in same)
        weights = tuple(None if is_missing(known) else str(known) for known in hashes)
        ids = tuple(row["cell_id"] for row in same)
        elsewhere = None if other is None else str(other["cell_id"])
        found.append(NoiseRuns(variant, seed, ids, elsewhere, weights))
    return found


def noise_floors(data: ReportInput, measured: Measurements, scores: CellScores) -> Floors:
    """The noise floor of each model and column.

    Args:
        data: with the cells that are trained for noise.
        measured: the study, whose groups and columns are asked.
        scores: of all cells, those that are trained for noise among them.
    """
    floors: dict[tuple[Group, str, str], Floor] = {}
    for runs in noise_runs(data.cells):
        for group in measured.groups:
            for column in group.columns:
                values = [scores.value(cell, group, column) for cell in runs.same]
                other = None if runs.other is None else scores.value(runs.other, group, column)
                known = tuple(value for value in values if value is not None)
                if values and values[0] is not None and (len(known) > 1 or other is not None):
                    place = group, runs.variant.model, column
                    floors[place] = Floor(runs, group, column, known, other)
    return floors


Place = tuple[Group, str, str, str, str]
"""Group, model, left, right and column of a comparison."""


def place_of(one: Comparison) -> Place:
    """Where a comparison stands in its tables."""
    return one.group, one.model, one.left, one.right, one.column


def below_floor(
    comparisons: Iterable[Comparison], floors: Floors, variants: Iterable[Variant]
) -> frozenset[Place]:
    """Places of the comparisons of ours whose difference is smaller than the noise floor.

    A difference from a published value is none: of its trainings nothing is known.
    """
    bases = {name_of(variant) for variant in variants if variant.method_name == BASE}
    return frozenset(
        place_of(one)
        for one in comparisons
        if one.family is not None and _is_below(one, floors, bases)
    )


def _is_below(one: Comparison, floors: Floors, bases: set[str]) -> bool:
    floor = floors.get((one.group, one.model, one.column))
    if floor is None or one.estimate is None:
        return False
    trained = sum(name not in bases for name in (one.left, one.right))
    limit = floor.under(one.estimate.num_seeds, trained)
    return limit is not None and abs(one.estimate.value) < limit
