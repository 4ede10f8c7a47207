"""Lines about running cells for a log without a terminal: a job's output, CI, a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from harness.errors import printable
from harness.grid.locks import holder
from harness.records.cell_progress import CellProgress
from harness.records.events import (
    CellEnded,
    CellQueued,
    CellStarted,
    EpochValidated,
    Event,
    Warned,
)

LINE_SECONDS = 180.0
"""Between two lines about a running cell."""


def print_now(text: str) -> None:
    """Prints a line that is there at once, whatever buffers the output."""
    print(printable(text), flush=True)


class LogLines:
    """A listener: a line when a cell starts, ends or fails, after an epoch's validation, and now
    and then how far each running cell is.

    Args:
        labels: of the cells that may run, by id.
        write: what prints a line.
        seconds: between two lines about a running cell; they come even if nothing happens.
        warnings: whether warnings are told too; else another listener does that.
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        write: Callable[[str], None] = print_now,
        *,
        seconds: float = LINE_SECONDS,
        warnings: bool = False,
    ) -> None:
        self.labels, self.write, self.seconds, self.warnings = labels, write, seconds, warnings
        self.running: dict[str, CellProgress] = {}
        self.queued: dict[str, None] = {}
        self.ended = 0
        self._lock, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> LogLines:
        threading.Thread(target=self._tell, name="log-lines", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        key = event.cell_id
        label = self.labels.get(key, key)
        if isinstance(event, CellQueued):
            self.queued[key] = None
            self.running.pop(key, None)
            return
        if isinstance(event, CellStarted):
            self.queued.pop(key, None)
            self.running[key] = CellProgress()
            what = f"{event.total_steps} steps to train" if event.total_steps else "scoring alone"
            self.write(f"{label}: starts ({what})")
        if isinstance(event, Warned) and self.warnings:
            self.write(f"warning: {label}: {event.message}")
        if isinstance(event, CellEnded):
            self.ended += 1
            self.queued.pop(key, None)
            self.running.pop(key, None)
            count = f"[{self.ended}/{len(self.labels)}]"
            count = f"{count} " if len(self.labels) > 1 else ""
            self.write(f"{count}{label}: {_ending(event)} ({event.seconds:.1f} s)")
        elif key in self.running:
            self.running[key] = self.running[key].after(event)
            if isinstance(event, EpochValidated) and not event.restored:
                self.write(f"{label}: {self.running[key]}")

    def _tell(self) -> None:
        """Prints how far the running cells are, until all is over."""
        while not self._over.wait(self.seconds):
            with self._lock:
                lines = [f"{self.labels[key]}: {far}" for key, far in self.running.items()]
                if self.queued:
                    lines.append(f"waiting in the queue: {len(self.queued)}")
            for line in lines:
                self.write(line)


def _ending(event: CellEnded) -> str:
    if event.elsewhere:
        return f"{holder(Path(event.folder))} runs it; the same command looks again"
    if event.paused:
        return "paused after an epoch, until the other trials have come as far"
    return "done" if event.error is None else f"FAILED: {event.error}"
