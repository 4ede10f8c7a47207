"""Response flags of generated answers, and what the order of the options does to a score.

The paper's protocol keeps the published measurement's rules (docs/paper-protocol.md); the flags
count how many responses each of them decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group, is_aggregate, is_missing
from harness.analysis.comparisons import row_name
from harness.analysis.measurements import Measurements, Variant
from harness.analysis.stats import Estimate, Sample, combine

if TYPE_CHECKING:
    import pandas as pd

FLAGS = {
    "several_named": "Names several",
    "empty": "Empty",
    "ratio_alone": "Right by similarity alone",
    "gold_first": "Gold stands first",
}
"""Response flags by their key in a score's `pathologies`, with their titles."""

SHUFFLED = "_shuffled"
"""What the name of a benchmark with shuffled options ends with."""


@dataclass(frozen=True)
class FlagLine:
    """Response flags of a variant in one column, over its seeds."""

    variant: Variant
    name: str
    column: str
    num_responses: int
    score: Estimate | None
    shares: Mapping[str, float]
    """By flag: share (0..1) of the responses."""


@dataclass(frozen=True)
class OrderLine:
    """A variant's mean scores (0..1) with the options in the given order and shuffled."""

    variant: Variant
    name: str
    benchmark: str
    """Title of the shuffled one."""
    given: float
    shuffled: float
    difference: Estimate | None
    """Given minus shuffled, paired by question and seed; None without the items' records."""


def flag_lines(measured: Measurements, group: Group) -> list[FlagLine]:
    """Response flags by variant and column, where any were counted."""
    lines = []
    for model in measured.models:
        variants = measured.table_variants(model)
        for variant in variants:
            for column, setting in group.settings.items():
                num_responses, counts = _counts(measured, variant, measured.rows[setting])
                if num_responses:
                    lines.append(
                        FlagLine(
                            variant=variant,
                            name=row_name(variant, variants),
                            column=column,
                            num_responses=num_responses,
                            score=measured.estimate(variant, group, column),
                            shares={key: count / num_responses for key, count in counts.items()},
                        )
                    )
    return lines


def _counts(
    measured: Measurements, variant: Variant, rows: pd.DataFrame
) -> tuple[int, dict[str, int]]:
    """Number of responses, and of those with each flag, over the seeds."""
    num_responses, total = 0, dict.fromkeys(FLAGS, 0)
    ids = set(measured.cells[variant].values())
    for record in rows[rows["cell_id"].isin(ids)].to_dict("records"):
        counted = record.get("pathologies")
        if isinstance(counted, dict) and counted:
            num_responses += int(record["n"])
            for key in FLAGS:
                total[key] += int(counted.get(key, 0))
    return num_responses, total


def order_lines(measured: Measurements) -> list[OrderLine]:
    """Scores with options as given and shuffled, of the cells that have both."""
    lines = []
    for benchmark in measured.benchmarks:
        if not benchmark.endswith(SHUFFLED):
            continue
        names = benchmark.removesuffix(SHUFFLED), benchmark
        given, shuffled = (_by_cell(measured, name) for name in names)
        for model in measured.models:
            variants = measured.table_variants(model)
            for variant in variants:
                cells = [
                    c for c in measured.cells[variant].values() if c in given and c in shuffled
                ]
                if cells:
                    lines.append(
                        OrderLine(
                            variant=variant,
                            name=row_name(variant, variants),
                            benchmark=measured.benchmarks[benchmark].title,
                            given=sum(given[cell] for cell in cells) / len(cells),
                            shuffled=sum(shuffled[cell] for cell in cells) / len(cells),
                            difference=_difference(measured, variant, *names),
                        )
                    )
    return lines


def _by_cell(measured: Measurements, benchmark: str) -> dict[str, float]:
    scores = measured.data.scores
    metric = measured.benchmarks[benchmark].primary_metric
    mine = scores[
        (scores["benchmark"] == benchmark) & (scores["metric"] == metric) & is_aggregate(scores)
    ]
    return {
        record["cell_id"]: float(record["value"])
        for record in mine.to_dict("records")
        if not is_missing(record["value"])
    }


def _difference(
    measured: Measurements, variant: Variant, given: str, shuffled: str
) -> Estimate | None:
    import numpy as np

    metric = measured.benchmarks[shuffled].primary_metric
    tables = []
    for cell_id in measured.cells[variant].values():
        frames = [measured.data.items(cell_id, name) for name in (given, shuffled)]
        if any(frame is None for frame in frames):
            continue
        # The tasks have the same questions in the same order, under different names.
        first, second = (frame.set_index("doc_id")[metric] for frame in frames if frame is not None)
        if len(first) == len(second):
            tables.append((first - second).to_numpy(dtype=float))
    if len({len(table) for table in tables}) != 1:
        return None
    items = np.stack(tables)
    return combine([Sample(items.mean(axis=1), items, None, items.shape[1])])
