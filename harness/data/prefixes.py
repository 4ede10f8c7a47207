"""What sequences of tokens begin with in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_prefix_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many leading items two sequences of one type share."""
    # By bisection: slices are compared at the speed of C.
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
