"""What a user sees in the terminal: summaries, closing tables; the live part is elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.estimate.plan import PlanRow, plan_rows
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.folders import CHECKPOINTS_FOLDER, LOG_FILE
from harness.grid.schema import GridSpec
from harness.grid.status import CellState

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.plan import GridOutcome


PIPE_WIDTH = 160
"""Columns where the output is no terminal: tables in a log lose nothing."""


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
        table.add_column(_head(name), justify="right")
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
    _print_notes(console, states)
    for state, message in errors:
        console.print(
            f"failed: {state.cell.label}: {message}{_log_line(state)}",
            markup=False, highlight=False, style="red", soft_wrap=True,
        )  # fmt: skip
    print_tracking_problem(console, problem)


def _head(benchmark: str) -> str:
    """Returns a benchmark's column; two protocols fill columns of one name."""
    known = BENCHMARKS[benchmark]
    if known.column is None:
        return benchmark
    return f"{known.protocol.mark} {known.column}".lstrip()


def _print_notes(console: Console, states: Sequence[CellState]) -> None:
    """Says what went wrong in a training that was finished nevertheless."""
    for state in states:
        train = state.result.train if state.result else None
        if train is not None and train.note:
            console.print(f"warning: {state.cell.label}: {train.note}", markup=False,
                          highlight=False, soft_wrap=True)  # fmt: skip


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
    from harness.tracking.uri import hide_password

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
    _print_notes(console, states)
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
        what = f"scores of {lacks}" if state.trained else f"training{_from_step(state)}"
        console.print(f"to do:   {state.cell.label}: {what}", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip


def _from_step(state: CellState) -> str:
    """Returns which step a training that was stopped goes on from."""
    found = sorted((state.folder / CHECKPOINTS_FOLDER).glob("step-*"))
    return f" (goes on from step {int(found[-1].name[5:])})" if found else ""


def print_json(record: dict[str, Any]) -> None:
    json.dump(record, sys.stdout, indent=1)
    print()
