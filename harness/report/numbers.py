"""Numbers as a reader sees them: percent, points, counts, times, p values, and the dash."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import is_missing

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate

MISSING = "–"
"""What stands where there is no number."""


def number(value: float | None, format_spec: str, factor: float = 1.0) -> str:
    """A number times a factor, or the dash where there is none (None or NaN)."""
    return MISSING if value is None or isnan(value) else format(factor * value, format_spec)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as percent without the sign: 0.4317 is `43.17`."""
    return number(value, f".{digits}f", 100)


def points(value: float | None, digits: int = 2) -> str:
    """A difference of shares in signed points: -0.012 is `−1.20`."""
    text = number(None if value is None else abs(value), f".{digits}f", 100)
    if value is None or text == MISSING or float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def interval_text(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """Ends of an interval of differences in points."""
    return MISSING if interval is None else " to ".join(points(end, digits) for end in interval)


def short_count(value: float | None) -> str:
    """A count with three digits: 1229760 is `1.23M`, 6738415616 is `6.74B`."""
    if value is None or isnan(value):
        return MISSING
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(int(value))


def short_seconds(value: float | None) -> str:
    """A time: 42.3 is `42 s`, 4000 is `1.1 h`."""
    if value is None or isnan(value):
        return MISSING
    for size, unit in ((3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def p_text(value: float | None) -> str:
    """A p value: `0.013`, `< 0.001`."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: Any) -> str:
    """A whole number of a frame; nothing where it is missing."""
    return "" if is_missing(value) else str(int(value))


def share_text(fraction: float | None) -> str:
    """A fraction of the data as percent; nothing for the untrained base model."""
    return "" if fraction is None else f"{100 * fraction:g}%"


def estimate_record(estimate: Estimate | None, name: str, unit: str) -> dict[str, object]:
    """Value, standard error and ends of the interval times 100, as columns of a CSV.

    The columns' names end with the unit; without an estimate all are empty.
    """
    low, high = (estimate.interval if estimate else None) or (None, None)
    value, stderr = (estimate.value, estimate.stderr) if estimate else (None, None)
    columns = {name: value, "stderr": stderr, "low": low, "high": high}
    return {
        f"{column}_{unit}": None if number is None else round(100 * number, 6)
        for column, number in columns.items()
    }
