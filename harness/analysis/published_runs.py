"""Published runs beside the measured cells that repeat them, by a method's label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.forgetting import Forgetting
from harness.analysis.frames import ReportInput
from harness.analysis.measurements import Measurements
from harness.analysis.pareto import Axis, Front, Point, front_of
from harness.analysis.peft_suite import (
    BENCHMARKS,
    NORMAL_95,
    SUITE,
    SuiteRow,
    SuiteTable,
    suite_table,
)
from harness.analysis.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd

AXES = (
    Axis("trainable_parameters", "Trained parameters"),
    Axis("peak_memory_bytes", "Peak memory (GiB)", factor=2**-30),
    Axis("forgetting", "Forgetting (nats per token)", is_log=False),
)
"""What the published accuracies are drawn against."""


@dataclass(frozen=True, eq=False)
class RunLine:
    """A published run, and what was measured of its cell, if anything."""

    row: SuiteRow
    rank: int
    """From 1, by the published accuracy."""
    measured: Estimate | None
    difference: float | None
    """Measured minus published, 0..1."""
    stderr: float | None
    """Of the difference: the error of both sides, which are taken as independent, and of each side
    with one seed the variance over seeds that the grid states."""
    is_planned: bool
    """Whether the grid has its cell."""
    seconds: float | None
    """Of training, measured: mean of the seeds."""
    memory_bytes: float | None
    """At most, measured."""
    forgetting: float | None
    """Measured, in bits per byte of the grid's own text."""

    @property
    def is_different(self) -> bool | None:
        """Whether the difference is beyond 1.96 of its standard errors; None without one."""
        if self.difference is None or not self.stderr:
            return None
        return abs(self.difference) > NORMAL_95 * self.stderr


@dataclass(frozen=True, eq=False)
class PublishedRuns:
    """All published runs of a grid."""

    table: SuiteTable
    column: str | None
    """What they are compared with; None where nothing of it is measured."""
    lines: tuple[RunLine, ...]
    """By rank."""
    other: str | None
    """Why what is measured is not compared with them; None where it is."""


def published_runs(
    data: ReportInput, measured: Measurements, forgotten: tuple[Forgetting, ...]
) -> PublishedRuns | None:
    """The published runs of a grid that names some."""
    if data.published_runs != SUITE:
        return None
    table, other = suite_table(), data.other_than_published
    place = _place(measured)
    variants = {variant.method: variant for variant in measured.cells}
    planned = set(data.cells["method"]) if len(data.cells) else set()
    lost = {change.variant: change.change.value for one in forgotten for change in one.changes}
    sd = data.seed_sd.of(*BENCHMARKS, is_share=True)
    spread = 0.0 if sd is None else (sd.points / 100) ** 2
    costs = _costs(data.cells)
    lines = []
    for rank, row in enumerate(table.ranking, start=1):
        variant = variants.get(row.label)
        ours, trainings = None, 2  # the published one, and ours
        if variant is not None and place is not None:
            ours = measured.estimate(variant, *place)
            if len(measured.seed_scores(variant, *place)) > 1:
                trainings = 1  # the spread over our seeds is in our error
        known = costs.get(row.label, {})
        lines.append(
            RunLine(
                row=row,
                rank=rank,
                measured=ours,
                difference=ours.value - row.accuracy if ours and not other else None,
                stderr=None
                if other
                else _stderr(ours, row.stderr(table.num_items), trainings * spread),
                is_planned=row.label in planned,
                seconds=known.get("seconds"),
                memory_bytes=known.get("peak_memory_bytes"),
                forgetting=None if variant is None else lost.get(variant),
            )
        )
    column = None if place is None else place[1]
    return PublishedRuns(table, column, tuple(lines), other)


def _place(measured: Measurements) -> tuple[Group, str] | None:
    """The group and column that the published accuracy is compared with."""
    for name in BENCHMARKS:
        for group in measured.groups:
            for column, setting in group.settings.items():
                if setting.benchmark == name:
                    return group, column
    return None


def _stderr(ours: Estimate | None, published: float, spread: float) -> float | None:
    if ours is None or ours.stderr is None:
        return None
    return math.sqrt(ours.stderr**2 + published**2 + spread)


def _costs(cells: pd.DataFrame) -> Mapping[str, Mapping[str, float]]:
    """Mean costs of the finished cells by label."""
    names = [name for name in ("seconds", "peak_memory_bytes") if name in cells]
    done = cells[cells["status"] == "done"] if "status" in cells else cells
    means = done.groupby("method")[names].mean(numeric_only=True)
    found: dict[str, dict[str, float]] = {}
    for label, values in means.to_dict("index").items():
        found[str(label)] = {str(k): float(v) for k, v in values.items() if math.isfinite(v)}
    return found


def run_fronts(runs: PublishedRuns) -> tuple[Front, ...]:
    """The published accuracies against parameters, memory and forgetting, with the errors of their
    items."""
    fronts = []
    for axis in AXES:
        points = [_point(line.row, axis.key, runs.table.num_items) for line in runs.lines]
        fronts.append(front_of(points, axis, "Published accuracy"))
    return tuple(front for front in fronts if front is not None)


def _point(row: SuiteRow, key: str, num_items: int) -> Point:
    half = NORMAL_95 * row.stderr(num_items)
    cost = {
        "trainable_parameters": float(row.trained_parameters),
        "peak_memory_bytes": float(row.peak_memory_bytes),
        "forgetting": row.forgetting,
    }[key]
    interval = (max(0.0, row.accuracy - half), row.accuracy + half)
    return Point(row.label, cost, row.accuracy, interval, style=row.label)


def told_different(runs: PublishedRuns) -> tuple[int, int]:
    """How many measured runs differ from the published ones beyond noise, and of how many."""
    known = [line.is_different for line in runs.lines if line.is_different is not None]
    return sum(known), len(known)
