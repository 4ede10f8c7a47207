"""What is shown while cells run: bars, in a log lines now and then, and warnings."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.canary import alarms
from harness.commands.display import print_line, print_warnings
from harness.errors import StorageError, printable
from harness.estimate.plan import plan_rows
from harness.grid.schema import RowCounts, is_base
from harness.grid.status import CellState
from harness.records.events import CellEnded, CellStarted, Emit, Event, Scoring, StepDone, Warned
from harness.records.results import read_result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SCORING_STEPS = 20
"""What scoring one benchmark counts in the overall progress, in optimizer steps."""
LINE_SECONDS = 180.0
"""Between two lines about a running cell, where the output is no terminal."""


@contextlib.contextmanager
def progress(console: Console, states: Sequence[CellState], rows: RowCounts) -> Iterator[Emit]:
    """Shows cells as they run; yields the listener of their events."""
    if not states:
        yield lambda event: None
        return
    if not console.is_terminal:
        with Lines(console, states) as lines:
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


@dataclass
class _Place:
    """How far a running cell is, for a line about it."""

    began: float
    """When this part of its work began, on the monotonic clock."""
    text: str = "loading"
    left: int = 0
    """Steps or requests to come in this part."""
    done: int = 0
    """Of this part, since `began`."""
    part: str = ""
    """`training`, or what is scored."""

    def enter(self, part: str) -> None:
        """Begins the clock anew where another part begins."""
        if part != self.part:
            self.part, self.began, self.done = part, time.monotonic(), 0

    def __str__(self) -> str:
        took = time.monotonic() - self.began
        rest = took * self.left / self.done if self.done else None
        return self.text if rest is None else f"{self.text}, {format_seconds(rest)} left of it"


class Lines:
    """For logs and pipes: a line when a cell starts and ends, and now and then how far it is.

    Args:
        states: of the cells that may run.
        seconds: between two lines about a running cell; they come even if nothing happens.
    """

    def __init__(
        self, console: Console, states: Sequence[CellState], seconds: float = LINE_SECONDS
    ) -> None:
        self.console, self.seconds = console, seconds
        self.labels = {state.cell.id: state.cell.label for state in states}
        self.ended = 0
        self.places: dict[str, _Place] = {}
        self.num_steps: dict[str, int] = {}
        self._lock, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> Lines:
        threading.Thread(target=self._tell, name="lines", daemon=True).start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._over.set()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, CellStarted):
            self.places[event.cell_id] = _Place(time.monotonic())
            self.num_steps[event.cell_id] = event.total_steps
            what = f"{event.total_steps} steps to train" if event.total_steps else "scoring alone"
            print_line(self.console, f"{self.labels[event.cell_id]}: starts ({what})")
        elif isinstance(event, StepDone) and event.cell_id in self.places:
            place, total = self.places[event.cell_id], self.num_steps[event.cell_id]
            place.text = f"step {event.step} of {total}, loss {event.loss:.3f}"
            if not event.restored:
                place.left = max(total - event.step, 0)
                place.enter("training")
                place.done += place.began < time.monotonic()
        elif isinstance(event, Scoring) and event.cell_id in self.places:
            place = self.places[event.cell_id]
            place.text = f"scoring {event.benchmark}, {event.done} of {event.total}"
            place.enter(event.benchmark)
            place.left, place.done = event.total - event.done, event.done
        elif isinstance(event, CellEnded):
            self.ended += 1
            self.places.pop(event.cell_id, None)
            what = "done" if event.error is None else f"FAILED: {event.error}"
            if event.elsewhere:
                what = "another process runs it"
            elif event.paused:
                what = "paused after an epoch, until the other trials have come as far"
            count, label = f"[{self.ended}/{len(self.labels)}]", self.labels[event.cell_id]
            print_line(self.console, f"{count} {label}: {what} ({event.seconds:.1f} s)")

    def _tell(self) -> None:
        """Prints how far the running cells are, until all is over."""
        while not self._over.wait(self.seconds):
            with self._lock:
                lines = [f"{self.labels[key]}: {place}" for key, place in self.places.items()]
            for line in lines:
                print_line(self.console, line)


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
        self.total = bars.add_task("[bold]all cells", total=sum(self.size.values()), text="")
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellStarted | CellEnded) and event.cell_id in self.tasks:
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
        if left is not None:
            text += f", {format_seconds(left)} left"
        self.bars.update(self.total, completed=done, text=text)


def format_seconds(seconds: float) -> str:
    """A duration as a reader says it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
