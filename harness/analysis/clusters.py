"""Items that share a source, such as a subject or a passage, and the errors that know of it.

Answers to items of one source go together, so that n items tell less than n independent ones. The
clustered standard error of a mean over n items in clusters c (Miller, 2411.00640) is
√(Σ_c (Σ_{i∈c} (x_i - x̄))²)/n. Of k seeds that answer the same items, with x̄_i the mean of an item
and r_si what is left of x_si without the item's and the seed's mean:

    I = Σ_c (Σ_{i∈c} (x̄_i - x̄))² / n²               items, and the rest in their means
    R = Σ_s Σ_c (Σ_{i∈c} r_si)² / (n² k (k - 1))     the rest alone
    Var = max(S²/k, Σ w² R) + Σ w² max(0, I - R)

which is the estimate of `stats.combine` with both sums taken within clusters: with one item in each
cluster I and R are its MS_item/(k·n) and MS_rest/(k·n) up to the factor (n - 1)/n. The formula has
no correction for few clusters, with which it comes out too small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.cell_scores import CellScores, Tables
from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.item_clusters import ClustersOf
from harness.analysis.measurements import Measurements
from harness.analysis.stats import mean_squares
from harness.analysis.variants import name_of

if TYPE_CHECKING:
    import numpy as np

MUCH_LARGER = 1.2
"""Ratio of a clustered error to the plain one above which a reader is warned: the plain interval
is a sixth too narrow."""
FEW_CLUSTERS = 30


@dataclass(frozen=True)
class ClusterLine:
    """Plain and clustered standard error of one score or paired difference, 0..1."""

    model: str
    name: str
    """A method, or `left − right`."""
    group: Group
    column: str
    plain: float
    clustered: float
    num_seeds: int
    num_items: int
    num_clusters: int
    source: str

    @property
    def ratio(self) -> float | None:
        """The clustered error over the plain one; None of two equal answers to all items."""
        return self.clustered / self.plain if self.plain else None

    @property
    def is_much_larger(self) -> bool:
        """Whether a reader of the plain error is to be warned."""
        return self.ratio is not None and self.ratio > MUCH_LARGER


def cluster_terms(items: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """I and R of the module's formula: (k, n) scores, and the (n,) clusters of the items."""
    import numpy as np

    num_seeds, num_items = items.shape
    means = items.mean(axis=0)
    shared = np.bincount(codes, weights=means - means.mean())
    term = float((shared**2).sum()) / num_items**2
    if num_seeds == 1:
        return term, 0.0
    rest = items - means[None, :] - items.mean(axis=1)[:, None] + means.mean()
    within = sum(float((np.bincount(codes, weights=one) ** 2).sum()) for one in rest)
    return term, within / (num_items**2 * num_seeds * (num_seeds - 1))


def standard_error(
    parts: Sequence[tuple[float, np.ndarray, np.ndarray | None]],
) -> float:
    """The crossed standard error of a weighted sum of benchmarks.

    Args:
        parts: weight, (k, n) scores, and the (n,) clusters of the items, or None where each item
            stands for itself.
    """
    num_seeds = parts[0][1].shape[0]
    rest = shared = 0.0
    for weight, items, codes in parts:
        if codes is None:
            both, own = (mean / items.size for mean in mean_squares(items))
        else:
            both, own = cluster_terms(items, codes)
        rest, shared = rest + weight**2 * own, shared + weight**2 * max(0.0, both - own)
    if num_seeds == 1:
        return math.sqrt(shared)
    composite = sum(weight * items.mean(axis=1) for weight, items, _ in parts)
    assert not isinstance(composite, int)
    return math.sqrt(max(float(composite.var(ddof=1)) / num_seeds, rest) + shared)


def cluster_lines(
    measured: Measurements, comparisons: Mapping[Group, Sequence[Comparison]], of: ClustersOf
) -> list[ClusterLine]:
    """A line for each score of the tables, and each of the comparisons, with known clusters."""
    scores = CellScores(measured)
    found: list[ClusterLine] = []
    for group, entries in comparisons.items():
        for variant in measured.tabled:
            cells = list(measured.cells[variant].values())
            for column in group.columns:
                tables = scores.tables(cells, group, column)
                found += _line(variant.model, name_of(variant), group, column, tables, cells, of)
        found += _of_differences(scores, group, entries, of)
    return found


def _of_differences(
    scores: CellScores, group: Group, entries: Sequence[Comparison], of: ClustersOf
) -> Iterator[ClusterLine]:
    for entry in entries:
        variants = {name_of(v): v for v in scores.measured.table_variants(entry.model)}
        parts = group.parts(entry.column)
        if entry.left not in variants or entry.right not in variants or not parts:
            continue
        pairs = scores.measured.paired_cells(variants[entry.left], variants[entry.right], parts[0])
        both = [
            pair
            for pair in pairs
            if all(scores.value(cell, group, entry.column) is not None for cell in pair)
        ]
        left, right = (
            scores.tables([pair[at] for pair in both], group, entry.column) for at in (0, 1)
        )
        if len(left) != len(right) or any(
            not a[2].equals(b[2]) for a, b in zip(left, right, strict=True)
        ):
            continue
        tables = [(*a[:3], a[3] - b[3]) for a, b in zip(left, right, strict=True)]
        cells = [cell for cell, _ in both]
        yield from _line(entry.model, entry.label, group, entry.column, tables, cells, of)


def _line(
    model: str,
    name: str,
    group: Group,
    column: str,
    tables: Tables,
    cells: Sequence[str],
    of: ClustersOf,
) -> Iterator[ClusterLine]:
    """Yields the line of a column, where the clusters of some of its items are known."""
    known = [of(cells[0], setting.benchmark) for _, setting, *_ in tables]
    codes = [one.codes(table[2]) for one, table in zip(known, tables, strict=True)]
    if not any(own is not None for own in codes) or any(t[3].shape[1] < 2 for t in tables):
        return
    both = list(zip(tables, codes, strict=True))
    sources = (one.source for one, own in zip(known, codes, strict=True) if own is not None)
    yield ClusterLine(
        model,
        name,
        group,
        column,
        plain=standard_error([(table[0], table[3], None) for table, _ in both]),
        clustered=standard_error([(table[0], table[3], own) for table, own in both]),
        num_seeds=tables[0][3].shape[0],
        num_items=sum(table[3].shape[1] for table in tables),
        num_clusters=sum(
            table[3].shape[1] if own is None else int(own.max()) + 1 for table, own in both
        ),
        source=", ".join(dict.fromkeys(sources)),
    )


def cluster_problems(measured: Measurements, of: ClustersOf) -> list[str]:
    """A line for each benchmark whose clusters should be known and are not."""
    found: dict[str, None] = {}
    for setting, frame in measured.rows.items():
        known = of(str(frame["cell_id"].iloc[0]), setting.benchmark)
        if known.problem is not None:
            said = f"{setting.benchmark}: which items share a {known.source} is not at hand"
            found[f"{said} ({known.problem}): no clustered errors."] = None
    return list(found)
