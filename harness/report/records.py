"""What the rows of a report's CSV files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.analysis.columns import Group
    from harness.analysis.stats import Estimate


def head_record(group: Group, model: str, data: str | None = None) -> dict[str, object]:
    """How it was measured, on which model and, where a grid has several, on which data set."""
    head: dict[str, object] = {
        "protocol": group.protocol,
        "columns_measured": group.title,
        "model": model,
    }
    return head if data is None else head | {"data": data}


def ends_record(interval: tuple[float, float] | None) -> dict[str, float | None]:
    """The ends of an interval."""
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def numbers_record(
    numbers: Mapping[str, float | None], form: str, unit: str | None = None
) -> dict[str, object]:
    """Numbers times 100, in columns whose names end with the form (`percent`, `points`).

    What is no share stands as it is in further columns, which end with `in_unit`, and its unit.
    """
    shares: dict[str, object] = {
        f"{name}_{form}": None if number is None or unit else round(100 * number, 6)
        for name, number in numbers.items()
    }
    if unit is None:
        return shares
    return shares | {f"{name}_in_unit": n for name, n in numbers.items()} | {"unit": unit}


def estimate_record(
    estimate: Estimate | None, name: str, form: str, unit: str | None = None
) -> dict[str, object]:
    """Value, standard error and ends of the interval; without an estimate all are empty."""
    value, stderr = (estimate.value, estimate.stderr) if estimate else (None, None)
    ends = ends_record(estimate.interval if estimate else None)
    return numbers_record({name: value, "stderr": stderr, **ends}, form, unit)
