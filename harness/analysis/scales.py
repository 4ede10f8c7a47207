"""In which numbers the scores of a column are printed: percent, or the metric's own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A factor and the decimals of a column's scores; `unit` is None of shares."""

    factor: float
    decimals: int
    unit: str | None = None

    def rounded(self, value: float) -> float:
        """A score as it is printed: two that look the same are a tie."""
        return round(self.factor * value, self.decimals)


def scale_of(unit: str | None, values: Iterable[float | None] = (), digits: int = 2) -> Scale:
    """How scores of a column, or their differences, are printed.

    Args:
        unit: what they count; None of shares, which are printed as percent with `digits` decimals.
        values: all of the column: of no shares the largest has `digits` + 2 digits in all.
        digits: see above.
    """
    if unit is None:
        return Scale(100.0, digits)
    largest = max((abs(value) for value in values if value), default=1.0)
    return Scale(1.0, min(12, max(0, digits + 1 - math.floor(math.log10(largest)))), unit)
