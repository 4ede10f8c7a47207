"""What the measurements share: one clock, and one way to print a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def clock() -> float:
    """Returns the seconds of a clock.

    With one thread on a CPU it is the processor's time: other work on the machine does not count.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds that a piece of work takes, and what it returns."""
    start = clock()
    value = work()
    return clock() - start, value


def print_line(columns: str, values: Sequence[Any]) -> None:
    """Prints one line of a table; a dash for what is not known.

    Args:
        columns: a format of as many places as there are values.
        values: texts, numbers, or None.
    """
    texts = []
    for value in values:
        if value is None:
            texts.append("-")
        elif isinstance(value, float):
            texts.append(f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.2f}")
        else:
            texts.append(str(value))
    print(columns.format(*texts), flush=True)
