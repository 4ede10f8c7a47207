"""What a user sees in the terminal: summaries, live progress, closing tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.evaluation.benchmarks import BENCHMARKS
from harness.events import CellEnded, CellStarted, Emit, Event, Scoring, StepDone
from harness.grid import GridSpec
from harness.plan import PlanRow, plan_rows
from harness.state import LOG_FILE, CellState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from harness.executors import GridOutcome

PIPE_WIDTH = 160
"""Columns where the output is no terminal: tables in a log lose nothing."""
SCORING_STEPS = 20
"""What scoring one benchmark counts in the overall progress, in optimizer steps."""


def console(*, quiet: bool = False) -> Console:
    """Returns the terminal; with `quiet`, stderr, so that stdout holds JSON alone."""
    from rich.console import Console

    screen = Console(stderr=quiet)
    return screen if screen.is_terminal else Console(stderr=quiet, width=PIPE_WIDTH)


def print_summary(
    console: Console,
    grid: GridSpec,
    states: Sequence[CellState],
    rows: int | None,
    devices: Sequence[str],
) -> None:
    """Prints what a run will do before it begins."""
    from rich.table import Table
    from rich.text import Text

    counts = {name: sum(state.status == name for state in states)
              for name in ("done", "to do", "running", "failed")}  # fmt: skip
    to_do = counts["to do"] + counts["failed"]
    running = f", {counts['running']} running elsewhere" if counts["running"] else ""
    again = f" ({counts['failed']} of them failed before)" if counts["failed"] else ""
    console.print(grid.title, markup=False, highlight=False, style="bold")
    console.print(
        f"{len(states)} cells: {counts['done']} done, {to_do} to do{again}{running}"
        + (f"; {len(devices)} × {devices[0].split(':')[0]}" if to_do and devices else ""),
        highlight=False,
    )
    if not to_do:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "method", "trainable"):
        table.add_column(column, justify="right" if column == "trainable" else "left")
    for column in ("cells", "steps per cell", "learning rate"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str], list[PlanRow]] = {}
    planned = plan_rows(states, rows)
    for state, row in zip(states, planned, strict=True):
        groups.setdefault((state.cell.model_name, state.cell.method_label), []).append(row)
    for (model, method), members in groups.items():
        table.add_row(
            Text(model),
            Text(method),
            f"{members[0].trainable_parameters:,}",
            str(len(members)),
            _range([row.steps for row in members]),
            _range([row.learning_rate for row in members]),
        )
    console.print(table)
    _print_warnings(console, planned)


def _range(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    if not known:
        return "–"
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"


@contextlib.contextmanager
def progress(console: Console, states: Sequence[CellState], rows: int | None) -> Iterator[Emit]:
    """Shows cells as they run; yields the listener of their events."""
    if not states:
        yield lambda event: None
        return
    if not console.is_terminal:
        yield _Lines(console, states)
        return
    with _progress_bars(console) as bars:
        yield _Bars(bars, states, rows)


def _progress_bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


class _Lines:
    """One line per finished cell, for logs and pipes."""

    def __init__(self, console: Console, states: Sequence[CellState]) -> None:
        self.console = console
        self.labels = {state.cell.id: state.cell.label for state in states}
        self.ended = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellEnded):
            self.ended += 1
            what = "done" if event.error is None else f"FAILED: {event.error}"
            if event.elsewhere:
                what = "another process runs it"
            self.console.print(
                f"[{self.ended}/{len(self.labels)}] {self.labels[event.cell_id]}: {what} "
                f"({event.seconds:.1f} s)",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip


class _Bars:
    """An overall bar with the time left, and one bar per running cell."""

    def __init__(self, bars: Progress, states: Sequence[CellState], rows: int | None) -> None:
        self.bars = bars
        self.start = time.monotonic()
        self.labels = {state.cell.id: state.cell.label for state in states}
        self.size: dict[str, float] = {}
        self.scored: dict[str, dict[str, float]] = {}
        self.steps: dict[str, int] = {}
        self.num_steps: dict[str, int] = {}
        for state, row in zip(states, plan_rows(states, rows), strict=True):
            steps = 0 if state.trained else (row.steps or 0)
            self.size[state.cell.id] = steps + SCORING_STEPS * len(state.cell.tasks)
        self.finished: set[str] = set()
        self.failed = 0
        self.total = bars.add_task("[bold]all cells", total=sum(self.size.values()), text="")
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellStarted):
            from rich.markup import escape

            self.num_steps[event.cell_id] = event.total_steps
            self.tasks[event.cell_id] = self.bars.add_task(
                escape(self.labels[event.cell_id]), total=max(event.total_steps, 1), text="loading"
            )
        elif isinstance(event, StepDone):
            self.steps[event.cell_id] = event.step
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
            if event.cell_id in self.tasks:
                self.bars.remove_task(self.tasks.pop(event.cell_id))
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
        left = elapsed * (total - done) / done if done and elapsed > 5 else None
        text = f"{len(self.finished)}/{len(self.size)} cells"
        if self.failed:
            text += f", [red]{self.failed} failed[/red]"
        if left is not None:
            text += f", {format_seconds(left)} left"
        self.bars.update(self.total, completed=done, text=text)


def format_seconds(seconds: float) -> str:
    """Returns a duration as a reader says it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def primary_scores(state: CellState) -> dict[str, float]:
    """Returns a cell's primary score of each benchmark that its grid lists, 0..1."""
    scores = {}
    for task in state.cell.tasks:
        for score in state.result.scores if state.result else ():
            wanted = BENCHMARKS[task.name].primary_metric
            if score.benchmark == score.task == task.name and score.metric == wanted:
                scores[task.name] = score.value
    return scores


def print_cells(console: Console, states: Sequence[CellState], problem: str | None = None) -> None:
    """Prints each cell's scores, or its error."""
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(task.name for state in states for task in state.cell.tasks))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cell", no_wrap=True)
    table.add_column("loss", justify="right")
    for name in names:
        table.add_column(BENCHMARKS[name].column or name, justify="right")
    errors = []
    for state in states:
        scores = primary_scores(state)
        train = state.result.train if state.result else None
        shown = [f"{100 * scores[name]:.1f}" if name in scores else "–" for name in names]
        loss = f"{train.epoch_losses[-1]:.3f}" if train else "–"
        table.add_row(Text(state.cell.label), loss, *shown)
        if state.status in ("failed", "stale") and state.fault:
            errors.append((state, state.fault))
    console.print(table)
    for state, message in errors:
        console.print(
            f"failed: {state.cell.label}: {message}{_log_line(state)}",
            markup=False, highlight=False, style="red", soft_wrap=True,
        )  # fmt: skip
    print_tracking_problem(console, problem)


def _log_line(state: CellState) -> str:
    log = state.folder / LOG_FILE
    return f"\n        log: {log}" if log.is_file() else ""


def print_tracking_problem(console: Console, problem: str | None) -> None:
    """Says what is not in MLflow, if anything is not."""
    if problem:
        console.print(
            f"warning: not all is in MLflow ({problem}); `zbench sync` makes up for it",
            markup=False, highlight=False, style="yellow", soft_wrap=True,
        )  # fmt: skip


def print_outcome(
    console: Console,
    states: Sequence[CellState],
    outcome: GridOutcome,
    uri: str,
    problem: str | None,
) -> None:
    """Prints what came of a run."""
    from harness.tracking import hide_password

    if outcome.done or outcome.failed:
        print_cells(console, states)
    print_tracking_problem(console, problem)
    done = sum(state.status == "done" for state in states)
    text = f"{done} of {len(states)} cells done"
    if outcome.failed:
        text += f", {len(outcome.failed)} failed (the same command tries them again)"
    elif done == len(states):
        text += "; now `zbench report` with the same grid"
    console.print(f"{text}. MLflow: {hide_password(uri)}", highlight=False, soft_wrap=True)


def print_plan(console: Console, grid: GridSpec, rows: Sequence[PlanRow]) -> None:
    """Prints a grid's cells."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "cell", "status"):
        table.add_column(column, no_wrap=True)
    for column in ("examples", "steps", "learning rate", "trainable"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.cell_id, Text(row.label), row.status, _count(row.examples), _count(row.steps),
            "–" if row.learning_rate is None else f"{row.learning_rate:g}",
            _count(row.trainable_parameters),
        )  # fmt: skip
    console.print(table)
    to_do = sum(row.status != "done" for row in rows)
    untrained = [row.steps for row in rows if not row.trained]
    known = [steps for steps in untrained if steps is not None]
    steps = f"{sum(known):,} optimizer steps"
    if len(known) < len(untrained):
        steps = "steps unknown until the data is read (state its size: data.num_rows)"
    console.print(
        f"{grid.name}: {len(rows)} cells, {to_do} to do, {steps}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    _print_warnings(console, rows)


def _print_warnings(console: Console, rows: Sequence[PlanRow]) -> None:
    for row in rows:
        if row.warning and not row.trained:
            console.print(f"warning: {row.warning}", markup=False, highlight=False, soft_wrap=True)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def print_status(console: Console, states: Sequence[CellState]) -> None:
    """Prints how far the cells are: all that is not done by name."""
    counts = {name: [state for state in states if state.status == name]
              for name in ("done", "running", "failed", "to do", "stale")}  # fmt: skip
    if not counts["stale"]:
        del counts["stale"]
    line = ", ".join(f"{len(members)} {name}" for name, members in counts.items())
    console.print(f"{len(states)} cells: {line}", highlight=False)
    for state in counts["running"]:
        console.print(f"running: {state.cell.label}  log: {state.folder / LOG_FILE}",
                      markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    for state in counts["failed"]:
        console.print(
            f"failed:  {state.cell.label}: {state.fault}{_log_line(state)}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    for state in counts.get("stale", []):
        console.print(f"stale:   {state.fault}", markup=False, highlight=False, soft_wrap=True)
    for state in counts["to do"]:
        lacks = ", ".join(task.name for task in state.missing)
        what = f"scores of {lacks}" if state.trained else "training"
        console.print(f"to do:   {state.cell.label}: {what}", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip
