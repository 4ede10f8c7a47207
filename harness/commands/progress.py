"""What is shown while cells run: bars, in a log lines now and then, and warnings."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.canary import alarms
from harness.commands.display import print_line, print_warnings
from harness.errors import StorageError, printable
from harness.estimate.plan import plan_rows
from harness.execution.log_lines import LogLines
from harness.grid.schema import RowCounts, is_base
from harness.grid.status import CellState
from harness.records.cell_progress import format_seconds
from harness.records.events import (
    CellEnded,
    CellQueued,
    CellStarted,
    Emit,
    Encoding,
    Event,
    Scoring,
    StepDone,
    Warned,
)
from harness.records.results import read_result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SCORING_STEPS = 20
"""What scoring one benchmark counts in the overall progress, in optimizer steps."""


@contextlib.contextmanager
def progress(console: Console, states: Sequence[CellState], rows: RowCounts) -> Iterator[Emit]:
    """Shows cells as they run; yields the listener of their events."""
    if not states:
        yield lambda event: None
        return
    if not console.is_terminal:
        labels = {state.cell.id: state.cell.label for state in states}
        with LogLines(labels, functools.partial(print_line, console)) as lines:
            yield lines
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        yield _Bars(bars, states, rows)


class Notices:
    """Prints each warning of cells once; and, as soon as a base model is scored, its alarms."""

    def __init__(self, console: Console, states: Sequence[CellState]) -> None:
        self.console = console
        self.states = {state.cell.id: state for state in states}
        self.printed: dict[str, None] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            state = self.states.get(event.cell_id)
            label = state.cell.label if state else event.cell_id
            self._warn(event.message, label, always=event.restarts)
        elif isinstance(event, CellEnded) and event.cell_id in self.states:
            state = self.states[event.cell_id]
            if is_base(state.cell):
                self._check_base(state)

    def _check_base(self, base: CellState) -> None:
        try:
            result = read_result(base.folder)
        except StorageError:  # reported where the cells are listed
            return
        for alarm in alarms(base.cell, result):
            self._warn(str(alarm))

    def _warn(self, text: str, label: str | None = None, *, always: bool = False) -> None:
        if always or text not in self.printed:  # many cells have the same model and data
            self.printed[text] = None
            print_warnings(self.console, [f"{label}: {text}" if label else text])


class _Bars:
    """An overall bar with the time left, and one bar per running cell."""

    def __init__(self, bars: Progress, states: Sequence[CellState], rows: RowCounts) -> None:
        self.bars = bars
        self.start = time.monotonic()
        self.labels = {state.cell.id: state.cell.label for state in states}
        self.size: dict[str, float] = {}
        self.scored: dict[str, dict[str, float]] = {}
        self.steps: dict[str, int] = {}
        self.restored: dict[str, int] = {}
        """Steps that a checkpoint spared: they say nothing of the time that is left."""
        self.num_steps: dict[str, int] = {}
        for state, row in zip(states, plan_rows(states, rows), strict=True):
            steps = 0 if state.trained else (row.steps or 0)
            self.size[state.cell.id] = steps + SCORING_STEPS * len(state.cell.tasks)
        self.finished: set[str] = set()
        self.failed = 0
        self.queued: set[str] = set()
        self.total = bars.add_task("[bold]all cells", total=sum(self.size.values()), text="")
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellQueued):
            self.queued.add(event.cell_id)
        elif isinstance(event, CellStarted | CellEnded):
            self.queued.discard(event.cell_id)
        begins = isinstance(event, CellStarted | CellEnded | CellQueued)
        if begins and event.cell_id in self.tasks:
            # At a start, a fresh process has taken the cell on.
            self.bars.remove_task(self.tasks.pop(event.cell_id))
        if isinstance(event, CellStarted):
            from rich.markup import escape

            self.num_steps[event.cell_id] = event.total_steps
            self.tasks[event.cell_id] = self.bars.add_task(
                escape(printable(self.labels[event.cell_id])),
                total=max(event.total_steps, 1),
                text="loading",
            )
        elif isinstance(event, StepDone):
            self.steps[event.cell_id] = event.step
            if event.restored:
                self.restored[event.cell_id] = event.step
            total = f"/{self.num_steps.get(event.cell_id, '?')}"
            rate = f"{event.tokens_per_second:,.0f} tok/s"
            text = f"step {event.step}{total}  loss {event.loss:.3f}  {rate}"
            self._update(event.cell_id, completed=event.step, text=text)
        elif isinstance(event, Encoding):
            text = f"encoding pictures {event.done}/{event.total}"
            self._update(event.cell_id, text=text)
        elif isinstance(event, Scoring):
            share = event.done / max(event.total, 1)
            self.scored.setdefault(event.cell_id, {})[event.benchmark] = share
            self._update(
                event.cell_id, total=max(event.total, 1), completed=event.done,
                text=f"scoring {event.benchmark} {event.done}/{event.total}",
            )  # fmt: skip
        elif isinstance(event, CellEnded):
            self.finished.add(event.cell_id)
            self.failed += event.error is not None
        self._overall()

    def _update(self, cell_id: str, **what: Any) -> None:
        if cell_id in self.tasks:
            self.bars.update(self.tasks[cell_id], **what)

    def _overall(self) -> None:
        done = 0.0
        for cell_id, size in self.size.items():
            scored = SCORING_STEPS * sum(self.scored.get(cell_id, {}).values())
            partly = min(size, self.steps.get(cell_id, 0) + scored)
            done += size if cell_id in self.finished else partly
        total = sum(self.size.values())
        elapsed = time.monotonic() - self.start
        here = done - sum(self.restored.values())
        left = elapsed * (total - done) / here if here > 0 and elapsed > 5 else None
        text = f"{len(self.finished)}/{len(self.size)} cells"
        if self.failed:
            text += f", [red]{self.failed} failed[/red]"
        if self.queued:
            text += f", {len(self.queued)} queued"
        if left is not None:
            text += f", {format_seconds(left)} left"
        self.bars.update(self.total, completed=done, text=text)
