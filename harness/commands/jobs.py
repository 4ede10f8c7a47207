"""What is said of the jobs that a command has submitted or found, once it leaves them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.events import CellEnded, CellQueued, Event


class Jobs:
    """Listens for cells in a scheduler's queue."""

    def __init__(self) -> None:
        self.queued: dict[str, CellQueued] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellQueued):
            self.queued[event.cell_id] = event
        elif isinstance(event, CellEnded):
            self.queued.pop(event.cell_id, None)

    def lines(self) -> Iterator[str]:
        """Yields how many cells are in the queue, as which jobs, and what ends them."""
        if not self.queued:
            return
        jobs = list(dict.fromkeys(one.job.partition("_")[0] for one in self.queued.values()))
        before = sum(one.before for one in self.queued.values())
        new = len(self.queued) - before
        if new:
            yield f"submitted: {_cells(new)}"
        if before:
            yield f"in the queue since an earlier command: {_cells(before)}"
        yield (
            f"`scancel {' '.join(jobs)}` ends them; `zbench status` with the same grid shows them, "
            "and --follow follows them"
        )


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number > 1)}"
