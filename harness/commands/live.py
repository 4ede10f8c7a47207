"""What is known of the cells that run: where, since when, and how far they are."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.grid.locks import holder
from harness.grid.status import CellState
from harness.records.cell_progress import CellProgress, format_seconds, stored_progress

SILENT_SECONDS = 600.0
"""A cell without an event for so long is said to be silent: it loads a large model, or hangs."""


@dataclass(frozen=True)
class Live:
    """A cell that runs or waits in a queue."""

    progress: CellProgress
    process: int | None = None
    host: str | None = None

    @property
    def place(self) -> str:
        """Where it runs: `process 4711 on node7`."""
        if self.process is None:
            return "another process"
        return f"process {self.process} on {self.host}"

    @property
    def since(self) -> str:
        """Since when: `since 21:03 (12 min)`; empty where that is not known."""
        if not self.progress.started_ms:
            return ""
        took = max(time.time() - self.progress.started_ms / 1000, 0)
        moment = datetime.fromtimestamp(self.progress.started_ms / 1000, UTC).astimezone()
        form = "%H:%M" if took < 12 * 3600 else "%d %b %H:%M"
        return f"since {moment:{form}} ({format_seconds(took)})"

    @property
    def silence(self) -> str:
        """`no word for 20 min`; empty where it spoke lately."""
        silent = time.time() - self.progress.last_ms / 1000 if self.progress.last_ms else 0
        return f"no word for {format_seconds(silent)}" if silent > SILENT_SECONDS else ""

    def __str__(self) -> str:
        """All of it in one line."""
        where = ", ".join(filter(None, [self.place, self.since, self.silence]))
        return f"{self.progress}; {where}"

    def record(self) -> dict[str, Any]:
        """The same for a machine to read; times are UTC, durations seconds."""
        far = self.progress
        return {
            "process": self.process,
            "host": self.host,
            "since": _moment(far.started_ms),
            "last_event": _moment(far.last_ms),
            "part": far.part,
            "step": far.step,
            "total_steps": far.total_steps,
            "loss": far.loss,
            "validation_loss": far.validation_loss,
            "tokens_per_second": far.tokens_per_second,
            "done": far.done,
            "total": far.total,
            "seconds_left": far.seconds_left,
        }


def _moment(time_ms: int) -> str | None:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat() if time_ms else None


def live_cells(states: Sequence[CellState]) -> dict[str, Live]:
    """The cells that run, by id; of them alone, files are read."""
    return {state.cell.id: _live(state.folder) for state in states if state.status == "running"}


def _live(folder: Path) -> Live:
    progress = stored_progress(folder) or CellProgress()
    named = re.search(r"\((\d+) on (.+)\)$", holder(folder))
    return Live(progress, *((int(named[1]), named[2]) if named else ()))
