"""Where the variance of a printed mean comes from: items, seeds, and what is left.

Of one variant in one column, k seeds that answer the same n items (see `analysis.stats`):

    Var(mean) = Var(seed)/k + Var(item)/n + Var(rest)/(k·n)

With S² the variance of the score over the seeds and MS the mean squares of the seeds × items table,
the three summands are S²/k - Σ w² MS_rest/(k·n), Σ w² (MS_item - MS_rest)/(k·n) and Σ w²
MS_rest/(k·n), by the moments of the two-way model (Searle, Casella & McCulloch 1992, chapter 4).
Each of the first two may be estimated below 0, where chance made it so. Of one seed the items'
summand holds the rest, and of the seeds nothing is known.

What a seed draws is told apart where blocks vary it apart (Bouthillier et al., 2103.03098): the
variance over trainings that differ in one source alone, less the same part of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.analysis.cell_scores import CellScores
from harness.analysis.columns import Group, is_missing
from harness.analysis.frames import FIXED, NOISE, VARIES, ReportInput
from harness.analysis.measurements import Measurements
from harness.analysis.stats import mean_squares
from harness.analysis.variants import BASE, Variant, variant_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Weighted = Sequence[tuple[float, "np.ndarray"]]
"""Weight and (seeds, items) scores of each part of a column."""


@dataclass(frozen=True)
class Parts:
    """The summands of the variance of a mean, in squared units of the scores (0..1)."""

    items: float
    seeds: float | None
    """None of one seed; below 0 where the seeds differ less than the rest alone makes them."""
    rest: float | None
    """None of one seed, whose rest is in `items`."""

    @property
    def total(self) -> float:
        """The variance, summands below 0 counted as 0."""
        return sum(max(0.0, part or 0.0) for part in (self.items, self.seeds, self.rest))

    def share(self, name: str) -> float | None:
        """What a summand is of the total, 0..1; None where it is not known."""
        part = getattr(self, name)
        return None if part is None or self.total == 0 else max(0.0, part) / self.total


@dataclass(frozen=True)
class Spread:
    """How far trainings lie apart that differ in some of what a seed draws."""

    variance: float
    """Of one training, in squared units of the scores; it may be below 0, as a summand may."""
    df: int

    @property
    def sd(self) -> float:
        """Standard deviation of one training; 0 where the variance is below 0."""
        return math.sqrt(max(0.0, self.variance))


@dataclass(frozen=True)
class VarianceLine:
    """One variant in one column."""

    variant: Variant
    group: Group
    column: str
    num_seeds: int
    num_items: int
    parts: Parts
    sources: Mapping[str, Spread] = field(default_factory=dict)
    """By what was varied apart, such as `order`."""


def parts_of(tables: Weighted) -> Parts | None:
    """The summands of the variance of a weighted sum of means; None of fewer than two items.

    `tables` have the same seeds in the same order.
    """
    if not tables or any(table.shape[1] < 2 for _, table in tables):
        return None
    num_seeds = tables[0][1].shape[0]
    items = rest = 0.0
    for weight, table in tables:
        ms_item, ms_rest = mean_squares(table)
        scale = weight**2 / table.size
        items, rest = items + scale * (ms_item - ms_rest), rest + scale * ms_rest
    if num_seeds == 1:
        return Parts(items, None, None)
    means = sum(weight * table.mean(axis=1) for weight, table in tables)
    assert not isinstance(means, int)
    return Parts(items, float(means.var(ddof=1)) / num_seeds - rest, rest)


def spread_of(tables: Weighted) -> Spread | None:
    """The variance between single trainings, without the part that items give by chance."""
    parts = parts_of(tables)
    num_seeds = tables[0][1].shape[0] if tables else 0
    if parts is None or parts.seeds is None:
        return None
    return Spread(num_seeds * parts.seeds, num_seeds - 1)


def variance_lines(
    data: ReportInput, measured: Measurements, scores: CellScores
) -> list[VarianceLine]:
    """A line for every trained variant of the tables, or that is varied, in each column.

    Args:
        data: with the cells that vary some sources alone.
        measured: the study.
        scores: of all cells, those that vary some sources alone among them.
    """
    varied = varied_cells(data.cells)
    variants = dict.fromkeys([*measured.tabled, *varied])
    return [
        line
        for group in measured.groups
        for variant in variants
        if variant.method_name != BASE
        for line in _lines_of(group, variant, varied.get(variant, {}), measured, scores)
    ]


def varied_cells(cells: pd.DataFrame) -> dict[Variant, dict[str, list[str]]]:
    """Of each variant the cells by what they vary, the one that they share with all others first.

    That is the study's own cell of the seed that all else has.
    """
    if VARIES not in cells:
        return {}
    rows: list[Mapping[str, Any]] = cells.to_dict("records")
    found: dict[Variant, dict[str, list[str]]] = {}
    for row in rows:
        if is_missing(row[VARIES]):
            continue
        variant = variant_of(row)
        sources = found.setdefault(variant, {})
        if row[VARIES] not in sources:
            first = [
                own["cell_id"]
                for own in rows
                if is_missing(own[NOISE])
                and variant_of(own) == variant
                and own["seed"] == row[FIXED]
            ]
            sources[row[VARIES]] = first[:1]
        sources[row[VARIES]].append(row["cell_id"])
    return found


def _lines_of(
    group: Group,
    variant: Variant,
    varied: Mapping[str, Sequence[str]],
    measured: Measurements,
    scores: CellScores,
) -> Iterator[VarianceLine]:
    cells = list(measured.cells.get(variant, {}).values())
    for column in group.columns:
        tables = _weighted(scores, cells, group, column)
        if (parts := parts_of(tables)) is None:
            continue
        spreads = {
            name: spread_of(_weighted(scores, ids, group, column)) for name, ids in varied.items()
        }
        yield VarianceLine(
            variant,
            group,
            column,
            num_seeds=tables[0][1].shape[0],
            num_items=sum(table.shape[1] for _, table in tables),
            parts=parts,
            sources={name: one for name, one in spreads.items() if one is not None},
        )


def _weighted(
    scores: CellScores, cells: Sequence[str], group: Group, column: str
) -> list[tuple[float, np.ndarray]]:
    return [(weight, table) for weight, *_, table in scores.tables(cells, group, column)]
