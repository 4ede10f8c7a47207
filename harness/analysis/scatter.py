"""Methods whose scores scatter more over the seeds than those that they are pooled with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.measurements import Measurements
from harness.analysis.variants import Variant
from harness.analysis.verdicts import ALPHA


@dataclass(frozen=True)
class Scattered:
    """A method that the pooled variance of a column does not fit: its intervals are too short."""

    model: str
    group: Group
    column: str
    variant: Variant
    p_value: float
    """Bonferroni's over the methods; see `moderation.most_scattered`."""


def scattered(measured: Measurements, comparisons: Iterable[Comparison]) -> list[Scattered]:
    """Of each column that is tested by a pooled variance at most one method of each data set.

    Bonferroni's correction goes over them all.
    """
    pooled = dict.fromkeys(
        (entry.model, entry.group, entry.column)
        for entry in comparisons
        if entry.is_tested and entry.estimate is not None and entry.estimate.basis == "pooled"
    )
    found = [
        Scattered(model, group, column, *most)
        for model, group, column in pooled
        for data in measured.data_sets(model)
        if (most := measured.most_scattered(model, data, group, column)) is not None
    ]
    return [one for one in found if one.p_value * len(found) < ALPHA]
