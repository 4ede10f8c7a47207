"""Response flags of generated answers, and what the order of the options does to a score.

The paper's protocol keeps the published measurement's rules (docs/paper-protocol.md), and that of
ScienceQA the official pattern; the flags count how many responses each rule decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from harness.analysis.columns import Group, is_aggregate
from harness.analysis.measurements import Measurements, finite
from harness.analysis.stats import Estimate, Sample, combine
from harness.analysis.variants import Variant

FLAGS = {
    "several_named": "Names several",
    "empty": "Empty",
    "ratio_alone": "Right by similarity alone",
    "gold_first": "Gold stands first",
    "not_extracted": "Not extracted",
}
"""Response flags by their key in a score's `response_flags`, with their titles."""

SHUFFLED = "_shuffled"
"""What the name of a benchmark with shuffled options ends with."""


@dataclass(frozen=True)
class FlagLine:
    """Response flags of a variant in one column, over its seeds."""

    variant: Variant
    column: str
    num_responses: int
    score: Estimate | None
    shares: Mapping[str, float]
    """By flag: share (0..1) of the responses."""


@dataclass(frozen=True)
class OrderLine:
    """A variant's mean scores (0..1) with the options in the given order and shuffled."""

    variant: Variant
    benchmark: str
    """Title of the shuffled one."""
    given: float
    shuffled: float
    difference: Estimate | None
    """Given minus shuffled, paired by question and seed; None without the items' records."""


def flag_lines(measured: Measurements, group: Group) -> list[FlagLine]:
    """Response flags by variant and column, where any were counted."""
    lines = []
    for variant in measured.tabled:
        ids = set(measured.cells[variant].values())
        for column, setting in group.settings.items():
            rows = measured.rows[setting]
            records = rows[rows["cell_id"].isin(ids)].to_dict("records")
            counted = [
                (record["n"], record["response_flags"])
                for record in records
                if isinstance(record.get("response_flags"), dict) and record["response_flags"]
            ]
            total = sum(int(num_responses) for num_responses, _ in counted)
            if total:
                shares = {
                    key: sum(flags.get(key, 0) for _, flags in counted) / total
                    for key in FLAGS
                    if any(key in flags for _, flags in counted)
                }
                score = measured.estimate(variant, group, column)
                lines.append(FlagLine(variant, column, total, score, shares))
    return lines


def order_lines(measured: Measurements) -> list[OrderLine]:
    """Scores with options as given and shuffled, of the cells that have both."""
    lines = []
    for benchmark in measured.benchmarks:
        known = measured.benchmarks[benchmark]
        if not benchmark.endswith(SHUFFLED) or known.picture_column is not None:
            continue
        names = benchmark.removesuffix(SHUFFLED), benchmark
        given, shuffled = (_by_cell(measured, name) for name in names)
        title = measured.benchmarks[benchmark].title
        for variant in measured.tabled:
            cells = [c for c in measured.cells[variant].values() if c in given and c in shuffled]
            if cells:
                first, second = (fmean(f[cell] for cell in cells) for f in (given, shuffled))
                difference = _difference(measured, variant, *names)
                lines.append(OrderLine(variant, title, first, second, difference))
    return lines


def _by_cell(measured: Measurements, benchmark: str) -> dict[str, float]:
    scores = measured.data.scores
    metric = measured.benchmarks[benchmark].primary_metric
    mine = scores[
        (scores["benchmark"] == benchmark) & (scores["metric"] == metric) & is_aggregate(scores)
    ]
    known = mine[finite(mine["value"])]
    return dict(zip(known["cell_id"], known["value"].astype(float), strict=True))


def _difference(
    measured: Measurements, variant: Variant, given: str, shuffled: str
) -> Estimate | None:
    import numpy as np

    metric = measured.benchmarks[shuffled].primary_metric
    tables = []
    for cell_id in measured.cells[variant].values():
        frames = [measured.data.items(cell_id, name) for name in (given, shuffled)]
        if any(frame is None or metric not in frame for frame in frames):
            continue
        # The tasks have the same questions in the same order, under different names.
        first, second = (frame.set_index("doc_id")[metric] for frame in frames if frame is not None)
        if len(first) == len(second):
            tables.append((first - second).to_numpy(dtype=float))
    if len({len(table) for table in tables}) != 1 or not np.isfinite(tables).all():
        return None
    items = np.stack(tables)
    return combine([Sample(items.mean(axis=1), items, None, items.shape[1])])
