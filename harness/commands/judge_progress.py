"""How many verdicts of a judge have come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.commands.display import print_line

if TYPE_CHECKING:
    from rich.console import Console

TOLD_SECONDS = 30.0
"""Between two lines in a log."""


@contextmanager
def verdict_progress(screen: Console, total: int) -> Iterator[Callable[[], None]]:
    """Gives what is called with each verdict; shows a bar, in a log lines now and then."""
    if screen.is_terminal:
        from rich.progress import Progress

        with Progress(console=screen, transient=True) as bar:
            task = bar.add_task("verdicts", total=total)
            yield lambda: bar.advance(task)
        return
    count, told = 0, time.monotonic()

    def one_more() -> None:
        nonlocal count, told
        count += 1
        if count == total or time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            print_line(screen, f"  {count:,} of {total:,} verdicts")

    yield one_more
