"""Numbers as a reader sees them: percent, points, counts, times, p values, and the dash."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate

MISSING = "–"
"""What stands where there is no number."""


def percent(value: float, digits: int = 2) -> str:
    """A share as percent without the sign: 0.4317 is `43.17`."""
    return f"{100 * value:.{digits}f}"


def points(value: float, digits: int = 2) -> str:
    """A difference of shares in signed points: -0.012 is `−1.20`."""
    text = f"{100 * abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


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


def share_text(fraction: float | None) -> str:
    """A fraction of the data as percent; nothing for the untrained base model."""
    return "" if fraction is None else f"{100 * fraction:g}%"


def estimate_record(estimate: Estimate | None, name: str, unit: str) -> dict[str, object]:
    """Value, standard error and ends of the interval times 100, as columns of a CSV.

    Args:
        estimate: None leaves all of them empty.
        name: of the value's column.
        unit: ends the columns' names.
    """
    low, high = (estimate.interval if estimate else None) or (None, None)
    value, stderr = (estimate.value, estimate.stderr) if estimate else (None, None)
    columns = {name: value, "stderr": stderr, "low": low, "high": high}
    return {
        f"{column}_{unit}": None if number is None else round(100 * number, 6)
        for column, number in columns.items()
    }
