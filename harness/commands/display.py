"""What several commands print: lines, JSON, the closing table of cells, warnings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.canary import grid_alarms
from harness.errors import printable
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.shown import OTHER_ITEMS
from harness.grid.folders import LOG_FILE
from harness.grid.schema import Cell
from harness.grid.status import CellState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.estimate.plan import PlanRow

LONGEST_LABEL = 36
"""Characters of a cell's label that are not broken for the sake of more columns."""
PIPE_WIDTH = 160
"""Columns where the output is no terminal: tables in a log lose nothing."""


def console(*, quiet: bool = False) -> Console:
    """The terminal; with `quiet`, stderr, so that stdout holds JSON alone."""
    from rich.console import Console

    screen = Console(stderr=quiet)
    return screen if screen.is_terminal else Console(stderr=quiet, width=PIPE_WIDTH)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Prints a text as it is: nothing in it is markup, and it is not broken into lines."""
    text = printable(text)
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True, emoji=False)


def print_json(record: dict[str, Any]) -> None:
    """Prints a record for a machine to read."""
    json.dump(record, sys.stdout, indent=1)
    print()


def cell_text(text: str) -> Text:
    """A text for a table: nothing in it is markup, and nothing steers the terminal."""
    from rich.text import Text

    return Text(printable(text), overflow="fold")


def new_table(texts: Sequence[str], numbers: Sequence[str], *, no_wrap: bool = False) -> Table:
    """A table without lines: columns of texts, then columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in texts:
        table.add_column(column, no_wrap=no_wrap)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=no_wrap)
    return table


def print_table(console: Console, table: Table, rows: Sequence[Sequence[str]]) -> None:
    """Prints a table of `new_table` with its rows.

    Where all of them fit into the width they are written as rich would, which takes 0.4 ms for
    each: a grid has thousands.
    """
    from rich.cells import cell_len
    from rich.text import Text

    texts = [[printable(text) for text in row] for row in rows]
    heads = [str(column.header) for column in table.columns]
    widths = [max(map(cell_len, column)) for column in zip(heads, *texts, strict=True)]
    whole = sum(widths) + 2 * (len(widths) - 1) <= console.width
    if not whole or any(mark in text for row in [heads, *texts] for text in row for mark in "\n\t"):
        for row in texts:
            table.add_row(*(Text(text, overflow="fold") for text in row))
        console.print(table)
        return
    right = [column.justify == "right" for column in table.columns]
    lines = []
    for row in [heads, *texts]:
        blanks = (" " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        padded = (b + t if r else t + b for t, b, r in zip(row, blanks, right, strict=True))
        lines.append("  ".join(padded))
    console.print(Text(lines[0], style=table.header_style), soft_wrap=True)
    if texts:
        console.out("\n".join(lines[1:]), highlight=False)


def cell_records(states: Sequence[CellState]) -> list[dict[str, Any]]:
    """How far the cells are, for a machine to read."""
    return [
        {
            "id": state.cell.id,
            "label": state.cell.label,
            "status": state.status,
            "folder": str(state.folder),
            "missing": [task.name for task in state.missing],
            "error": state.fault,
            "scores": _primary_scores(state),
        }
        | _roles(state.cell)
        for state in states
    ]


def _roles(cell: Cell) -> dict[str, Any]:
    """What a cell is to a tuning, and its other names; nothing of a cell that is in none."""
    role = {} if cell.tuning is None else {"tuning": cell.tuning.model_dump()}
    others = [one.label for one in cell.listings[1:]]
    return role | ({"also": others} if others else {})


def _primary_scores(state: CellState) -> dict[str, float]:
    """A cell's primary score of each benchmark that its grid lists: 0..1 where it is a share."""
    scores = {}
    for task in state.cell.tasks:
        for score in state.shown.scores if state.shown else ():
            wanted = task.benchmark.primary_metric
            if score.benchmark == score.task == task.name and score.metric == wanted:
                scores[task.name] = score.value
    return scores


def print_cells(console: Console, states: Sequence[CellState], problem: str | None = None) -> None:
    """Prints each cell's scores, or its error; and `problem`, what is not in MLflow."""
    from harness.report.parts import divided, longest_piece, stacked

    known = {task.name: task.benchmark for state in states for task in state.cell.tasks}
    heads = ["loss", *map(_heading, known.values())]
    rows = []
    for state in states:
        scores = _primary_scores(state)
        train = state.result.train if state.result else None
        shown = [_score_text(one, scores.get(name)) for name, one in known.items()]
        rows.append([f"{train.epoch_losses[-1]:.3f}" if train else "–", *shown])
    labels = [printable(state.cell.label) for state in states]
    widths = [
        2 + max([longest_piece(head), *(len(line[place]) for line in rows)])
        for place, head in enumerate(heads)
    ]
    left = console.width - min(LONGEST_LABEL, max(map(len, labels), default=0))
    # Columns that do not fit stand in a table of their own, beside the cells again.
    for chunk in divided(widths, left):
        table = new_table(["cell"], [])
        for place in chunk:
            head = cell_text("\n".join(stacked(heads[place])))
            table.add_column(head, justify="right", no_wrap=True)
        for label, line in zip(labels, rows, strict=True):
            table.add_row(cell_text(label), *(line[place] for place in chunk))
        console.print(table)
    print_notes(console, states)
    for state in states:
        if state.status in ("failed", "stale") and state.fault:
            text = f"failed: {state.cell.label}: {state.fault}{log_line(state)}"
            print_line(console, text, "red")
    print_tracking_problem(console, problem)


def _score_text(benchmark: Benchmark, score: float | None) -> str:
    """A primary score: a share in percent, else as it is."""
    if score is None:
        return "–"
    share = benchmark.unit(benchmark.primary_metric) is None
    return f"{100 * score:.1f}" if share else f"{score:.4g}"


def _heading(benchmark: Benchmark) -> str:
    """A benchmark's column; two protocols fill columns of one name."""
    if benchmark.column is None:
        return benchmark.name
    return f"{benchmark.protocol.mark} {benchmark.column}".lstrip()


def print_notes(console: Console, states: Sequence[CellState]) -> None:
    """Says what went wrong in a training that was finished nevertheless."""
    trained = [(state, state.result.train) for state in states if state.result]
    notes = [
        f"{state.cell.label}: {train.note}" for state, train in trained if train and train.note
    ]
    print_warnings(console, notes)


def log_line(state: CellState) -> str:
    """The line that names a cell's log, where there is one."""
    log = state.folder / LOG_FILE
    return f"\n        log: {log}" if log.is_file() else ""


def print_tracking_problem(console: Console, problem: str | None) -> None:
    """Says what is not in MLflow, if anything is not."""
    if problem:
        print_warnings(
            console, [f"not all is in MLflow ({problem}); `zbench sync` makes up for it"]
        )


def grid_warnings(states: Sequence[CellState]) -> list[str]:
    """What a reader of a grid's results must know, one line each."""
    others = {
        score.benchmark: score.note[score.note.index(OTHER_ITEMS) :]
        for state in states
        for score in (state.shown.scores if state.shown else ())
        if score.note and OTHER_ITEMS in score.note
    }
    locks = [state.lock_fault for state in states if state.lock_fault is not None]
    more = f" ({len(locks) - 1} more cells likewise)" if len(locks) > 1 else ""
    return [
        *(f"{fault}{more}" for fault in locks[:1]),
        *(line for state in states for line in state.damaged),
        *map(str, grid_alarms(states)),
        *(f"{benchmark}: {note}" for benchmark, note in others.items()),
    ]


def size_text(num_bytes: int) -> str:
    """A number of bytes in a unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Prints one line for each warning."""
    for text in warnings:
        print_line(console, f"warning: {text}", "yellow")


def print_plan_warnings(console: Console, rows: Sequence[PlanRow]) -> None:
    """Says what is odd of the cells that are still to be trained."""
    print_warnings(console, [row.warning for row in rows if row.warning and not row.trained])
