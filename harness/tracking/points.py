"""One point per step and metric: what a run holds of what is to be logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

LARGEST = 1.7976931348623157e308
"""What MLflow's databases hold in place of infinity."""


@dataclass(frozen=True)
class Lacking:
    """What a run lacks of points that are to be logged."""

    new: list[Metric]
    """It has none of this metric and step."""
    unlike: list[Metric]
    """It has another value: an earlier evaluation's, say."""


def lacking_points(client: MlflowClient, run: Run, metrics: Sequence[Metric]) -> Lacking:
    """What a run, as it was listed, lacks; the store is asked for a metric's course if need be."""
    found = Lacking([], [])
    wanted: dict[str, list[Metric]] = {}
    for metric in metrics:
        wanted.setdefault(metric.key, []).append(metric)
    for key, points in wanted.items():
        latest = run.data.metrics.get(key)
        if latest is None:
            found.new.extend(points)
            continue
        if len(points) == 1 and _alike(latest, points[0].value):
            continue
        held: dict[int, list[float]] = {}
        for point in client.get_metric_history(run.info.run_id, key):
            held.setdefault(point.step, []).append(point.value)
        for point in points:
            if point.step not in held:
                found.new.append(point)
            elif not any(_alike(value, point.value) for value in held[point.step]):
                found.unlike.append(point)
    return found


def _alike(held: float, value: float) -> bool:
    if math.isnan(held) or math.isnan(value):
        return math.isnan(held) and math.isnan(value)
    held, value = (max(-LARGEST, min(LARGEST, each)) for each in (held, value))
    return math.isclose(held, value, rel_tol=1e-12)
