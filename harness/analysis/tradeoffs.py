"""What each score costs: Pareto fronts of a grid's scores against parameters, operations, hours and
memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.measurements import Measurements
from harness.analysis.pareto import Axis, Better, Front, Point, front_of
from harness.analysis.variants import BASE, Variant, name_of

if TYPE_CHECKING:
    import pandas as pd

PARAMETERS = Axis("trainable_parameters", "Trained parameters")
OPERATIONS = Axis("training_flops", "Training FLOPs")
MEMORY = Axis("peak_memory_bytes", "Peak memory (GiB)", factor=2**-30)
HOURS = {"cuda": "GPU hours", "cpu": "CPU hours"}
"""By device: what its measured hours are called."""


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """One column's scores of a model and data set against each cost that tells its rows apart."""

    group: Group
    model: str
    data: str | None
    """The data set's name, where the grid has several."""
    column: str
    fronts: tuple[Front, ...]
    """By cost."""


def tradeoffs(
    measured: Measurements, comparisons: Mapping[Group, Sequence[Comparison]]
) -> Iterator[Tradeoff]:
    """Yields the fronts of every average, and of what the grid tests, at the tables' rows.

    A cost that is not known, or the same for all rows, gives none. The untrained base model costs
    nothing. `comparisons` are those of the report: where a pair is among them its interval is
    taken, so that page and figure say the same.
    """
    for group, found in comparisons.items():
        for model in measured.models:
            tested = [e.column for e in found if e.model == model and e.is_tested]
            for data in measured.data_sets(model):
                variants = [v for v in measured.table_variants(model) if v.data in (None, data)]
                costs = _costs(measured, variants)
                for column in dict.fromkeys((*group.averages, *tested)):
                    fronts = _fronts(measured, found, variants, group, column, costs)
                    if fronts:
                        yield Tradeoff(group, model, data, column, fronts)


def _fronts(
    measured: Measurements,
    comparisons: Sequence[Comparison],
    variants: Sequence[Variant],
    group: Group,
    column: str,
    costs: Mapping[Axis, Mapping[Variant, Sequence[float]]],
) -> tuple[Front, ...]:
    estimates = {v: measured.estimate(v, group, column) for v in variants}
    known = {variant: one for variant, one in estimates.items() if one is not None}
    better = _better(measured, comparisons, list(known), group, column)
    fronts = []
    for axis, cost_of in costs.items():
        points = [
            Point(
                label=name_of(variant) if variant.method_name == BASE else variant.method,
                cost=_mean(values := cost_of[variant]),
                value=estimate.value,
                interval=estimate.interval,
                cost_range=(min(values), max(values)) if values else None,
                style=variant.method,
            )
            for variant, estimate in known.items()
        ]
        fronts.append(
            front_of(
                points,
                axis,
                column,
                unit=group.unit(column),
                lower_is_better=group.is_lower_better(column),
                is_better=better,
            )
        )
    return tuple(front for front in fronts if front is not None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _better(
    measured: Measurements,
    comparisons: Sequence[Comparison],
    variants: Sequence[Variant],
    group: Group,
    column: str,
) -> Better:
    """Whether the paired interval of two variants lies on the first one's side."""
    told = {
        (entry.model, entry.left, entry.right): entry.estimate.interval
        for entry in comparisons
        if entry.column == column and entry.estimate is not None
    }
    sign = -1.0 if group.is_lower_better(column) else 1.0

    def interval(left: Variant, right: Variant) -> tuple[float, float] | None:
        names = name_of(left), name_of(right)
        if (found := told.get((left.model, *names))) is not None:
            return found
        if (found := told.get((left.model, *names[::-1]))) is not None:
            return -found[1], -found[0]
        difference = measured.difference(left, right, group, column)
        return None if difference is None else difference.estimate.interval

    def is_better(first: int, second: int) -> bool | None:
        found = interval(variants[first], variants[second])
        return None if found is None else min(sign * end for end in found) > 0

    return is_better


def _costs(
    measured: Measurements, variants: Sequence[Variant]
) -> dict[Axis, dict[Variant, list[float]]]:
    """The cost of each seed of each variant by axis; none of a seed of which it is not known.

    Hours and memory of several kinds of device are no one cost, and left out.
    """
    rows = {variant: _rows(measured, variant) for variant in variants}
    trained = [frame for v, frame in rows.items() if v.method_name != BASE]
    devices = {str(device) for frame in trained for device in frame["device"].dropna()}
    columns: dict[Axis, Callable[[pd.DataFrame], pd.Series]] = {
        PARAMETERS: lambda frame: frame["trainable_parameters"],
        OPERATIONS: lambda frame: frame["cell_id"].map(measured.data.training_flops),
    }
    if len(devices) == 1:
        title = HOURS.get(next(iter(devices)), "Device hours")
        columns[Axis("device_hours", title)] = _hours
        columns[MEMORY] = lambda frame: frame["peak_memory_bytes"]
    return {
        axis: {
            variant: [0.0]
            if variant.method_name == BASE
            else [float(value) for value in column(frame).dropna()]
            for variant, frame in rows.items()
        }
        for axis, column in columns.items()
    }


def _rows(measured: Measurements, variant: Variant) -> pd.DataFrame:
    cells = measured.data.cells
    return cells[cells["cell_id"].isin(set(measured.cells[variant].values()))]


def _hours(frame: pd.DataFrame) -> pd.Series:
    """Measured hours of training times the devices that shared it."""
    devices = frame["num_devices"].fillna(1) if "num_devices" in frame else 1
    return frame["seconds"].astype(float) * devices / 3600
