"""Numbers as a reader sees them: percent, points, counts, times, p values, and the dash."""

from __future__ import annotations

from math import isnan
from typing import Any

from harness.analysis.columns import is_missing
from harness.analysis.scales import Scale

MISSING = "–"
"""What stands where there is no number."""


def number(value: float | None, format_spec: str, factor: float = 1.0) -> str:
    """A number times a factor, or the dash where there is none (None or NaN)."""
    return MISSING if value is None or isnan(value) else format(factor * value, format_spec)


def scaled(value: float | None, scale: Scale) -> str:
    """A score in its column's numbers."""
    return number(value, f".{scale.decimals}f", scale.factor)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as percent without the sign: 0.4317 is `43.17`."""
    return scaled(value, Scale(100, digits))


def signed(value: float | None, scale: Scale) -> str:
    """A difference of scores in its column's numbers, with its sign."""
    text = scaled(None if value is None else abs(value), scale)
    if value is None or text == MISSING or float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def points(value: float | None, digits: int = 2) -> str:
    """A difference of shares in signed points: -0.012 is `−1.20`."""
    return signed(value, Scale(100, digits))


def interval_text(
    interval: tuple[float, float] | None, digits: int = 2, scale: Scale | None = None
) -> str:
    """Ends of an interval of differences, in points or in a column's numbers."""
    known = scale or Scale(100, digits)
    return MISSING if interval is None else " to ".join(signed(end, known) for end in interval)


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


def p_is(value: float | None) -> str:
    """A p value after its letter: `= 0.013`, `< 0.001`."""
    text = p_text(value)
    return text if text[0] in "<–" else f"= {text}"


def count(value: Any) -> str:
    """A whole number of a frame; nothing where it is missing."""
    return "" if is_missing(value) else str(int(value))


def share_text(fraction: float | None) -> str:
    """A fraction of the data as percent; nothing for the untrained base model."""
    return "" if fraction is None else f"{100 * fraction:g}%"
