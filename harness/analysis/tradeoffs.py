"""What each score costs: Pareto fronts of a grid's scores against parameters, operations, hours and
memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.forgetting import UNIT, Forgetting
from harness.analysis.measurements import Measurements
from harness.analysis.pareto import Axis, Better, Front, Point, front_of
from harness.analysis.stats import Estimate
from harness.analysis.variants import BASE, Variant, name_of

if TYPE_CHECKING:
    import pandas as pd

PARAMETERS = Axis("trainable_parameters", "Trained parameters")
OPERATIONS = Axis("training_flops", "Training FLOPs")
MEMORY = Axis("peak_memory_bytes", "Peak memory (GiB)", factor=2**-30)
FORGETTING = Axis("forgetting", f"Forgetting ({UNIT})", is_log=False)
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
    is_drawn: bool = True
    """Whether it has a figure: what is tested; of a group in which nothing is, its averages."""


Interval = tuple[float, float]


@dataclass(frozen=True)
class _Cost:
    """What a row costs."""

    value: float
    """NaN where it is not known."""
    ends: Interval | None = None
    """See `Point.cost_range`."""


Costs = Mapping[Axis, Mapping[Variant, _Cost]]


def tradeoffs(
    measured: Measurements,
    comparisons: Mapping[Group, Sequence[Comparison]],
    forgotten: Sequence[Forgetting] = (),
) -> Iterator[Tradeoff]:
    """Yields the fronts of every average, and of what the grid tests, at the tables' rows.

    A cost that is not known, or the same for all rows, gives none. The untrained base model costs
    nothing. `comparisons` are those of the report: where a pair is among them its interval is
    taken, so that page and figure say the same. `forgotten` is one more cost, of the scores that
    are not of that text themselves.
    """
    for group, found in comparisons.items():
        for model in measured.models:
            tested = [e.column for e in found if e.model == model and e.is_tested]
            for data in measured.data_sets(model):
                variants = [v for v in measured.table_variants(model) if v.data in (None, data)]
                costs = _costs(measured, variants)
                lost = next((one for one in forgotten if one.model == model and one.changes), None)
                for column in dict.fromkeys((*group.averages, *tested)):
                    more: Costs = {}
                    if lost is not None and lost.column not in group.weights_of(column):
                        more = {FORGETTING: _forgetting(lost)}
                    fronts = _fronts(measured, found, variants, group, column, {**costs, **more})
                    if fronts:
                        drawn = not tested or column in tested
                        yield Tradeoff(group, model, data, column, fronts, drawn)


def _fronts(
    measured: Measurements,
    comparisons: Sequence[Comparison],
    variants: Sequence[Variant],
    group: Group,
    column: str,
    costs: Costs,
) -> tuple[Front, ...]:
    estimates = {v: measured.pooled(v, group, column) for v in variants}
    known = {variant: one for variant, one in estimates.items() if one is not None}
    better = _better(measured, comparisons, list(known), group, column)
    fronts = []
    for axis, cost_of in costs.items():
        points = [
            Point(
                label=name_of(variant) if variant.method_name == BASE else variant.method,
                cost=(cost := cost_of.get(variant, _Cost(math.nan))).value,
                value=estimate.value,
                interval=_possible(estimate.interval, group.unit(column)),
                cost_range=cost.ends,
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


def _possible(interval: Interval | None, unit: str | None) -> Interval | None:
    """A score's interval without what no score of its kind can be: shares end at 0 and 1."""
    if interval is None or unit is not None:
        return interval
    return max(0.0, interval[0]), min(1.0, interval[1])


def _better(
    measured: Measurements,
    comparisons: Sequence[Comparison],
    variants: Sequence[Variant],
    group: Group,
    column: str,
) -> Better:
    """Whether the paired interval of two variants lies on the first one's side."""
    told = {
        (entry.model, entry.left, entry.right): entry.estimate
        for entry in comparisons
        if entry.column == column and entry.estimate is not None
    }
    sign = -1.0 if group.is_lower_better(column) else 1.0

    def estimate(left: Variant, right: Variant) -> tuple[Estimate | None, float]:
        """Of left minus right, or of right minus left with -1."""
        names = name_of(left), name_of(right)
        for order, turned in ((names, 1.0), (names[::-1], -1.0)):
            if (found := told.get((left.model, *order))) is not None:
                return found, turned
        difference = measured.difference(left, right, group, column)
        return None if difference is None else difference.estimate, 1.0

    def is_better(first: int, second: int) -> bool | None:
        found, turned = estimate(variants[first], variants[second])
        # Of two trained models alone nothing is known that would hold for their methods.
        if found is None or found.interval is None or found.scope == "models":
            return None
        return min(sign * turned * end for end in found.interval) > 0

    return is_better


def _costs(measured: Measurements, variants: Sequence[Variant]) -> dict[Axis, dict[Variant, _Cost]]:
    """The mean cost of each variant's seeds, and its range, by axis.

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
            variant: _Cost(0.0) if variant.method_name == BASE else _of_seeds(column(frame))
            for variant, frame in rows.items()
        }
        for axis, column in columns.items()
    }


def _of_seeds(costs: pd.Series) -> _Cost:
    values = [float(value) for value in costs.dropna()]
    if not values:
        return _Cost(math.nan)
    return _Cost(sum(values) / len(values), (min(values), max(values)))


def _forgetting(found: Forgetting) -> dict[Variant, _Cost]:
    """What each row has forgotten, with its interval; the base model nothing."""
    assert found.base is not None
    return {
        found.base: _Cost(0.0),
        **{one.variant: _Cost(one.change.value, one.change.interval) for one in found.changes},
    }


def _rows(measured: Measurements, variant: Variant) -> pd.DataFrame:
    cells = measured.data.cells
    return cells[cells["cell_id"].isin(set(measured.cells[variant].values()))]


def _hours(frame: pd.DataFrame) -> pd.Series:
    """Measured hours of training times the devices that shared it."""
    devices = frame["num_devices"].fillna(1) if "num_devices" in frame else 1
    return frame["seconds"].astype(float) * devices / 3600
