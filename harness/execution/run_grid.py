"""Runs a grid's cells with an executor, and counts what is done, failed and skipped."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.execution.devices import RunPlan
from harness.execution.local import run_local
from harness.grid.schema import Cell, is_base
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, Emit, Event

Executor = Callable[[Sequence[CellState], RunPlan], Iterator[Event]]
"""Runs cells, the first ones first, and yields their events; a new one is a file here and an entry
in EXECUTORS.

- Each cell runs through `run_cell` in a process of its own device(s), which have as many of
  `RunPlan.devices` as `devices_needed` says, and no two cells share a device at a time.
- The events of a cell come in their order. A `CellEnded` is the last one of each cell, and comes
  once, also for a cell whose process dies: that cell fails alone, with the reason recorded in its
  folder (`record_failure`). After `Warned(restarts=True)` a fresh process begins the cell again.
- When the iterator is closed, or interrupted by KeyboardInterrupt, the processes get SIGTERM, time
  to write a checkpoint, and then SIGKILL; none is left when it returns. None outlives the parent.
"""

EXECUTORS: dict[str, Executor] = {"local": run_local}


@dataclass(frozen=True)
class GridOutcome:
    """Ids of the cells by how their run ended."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    """Done before, running elsewhere, paused, or not reached."""
    interrupted: bool = False
    """Whether ctrl-C or SIGTERM ended the run."""


def run_grid(
    states: Sequence[CellState], plan: RunPlan, listeners: Sequence[Emit], executor: str = "local"
) -> GridOutcome:
    """Runs the cells that are to do or have failed, and passes every event to every listener.

    Untrained base models come first: their scores tell whether the evaluation is right (see
    `harness.analysis.canary`) before the others are paid for. A cell's failure does not stop the
    others. Cells that another process runs are looked at again at the end, and taken on where it
    has left them (it was killed, say). An interrupt (ctrl-C, SIGTERM) stops the workers once they
    have written a checkpoint; a second one kills them. What is stored is kept.
    """
    work = [state for state in states if state.status in ("to do", "failed")]
    work.sort(key=lambda state: not is_base(state.cell))
    open_ids = {state.cell.id for state in states if state.status not in ("done", "stale")}
    ended: dict[str, bool | None] = {}  # by id: whether it is done; None: its training paused
    interrupted = False
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for attempt in itertools.count():
            before = len(ended)
            with contextlib.closing(EXECUTORS[executor](work, plan)) as events:  # type: ignore[type-var]
                for event in events:
                    if isinstance(event, CellEnded) and not event.elsewhere:
                        ended[event.cell_id] = None if event.paused else event.error is None
                    for listener in listeners:
                        listener(event)
            left = [state.cell for state in states if state.cell.id in open_ids - ended.keys()]
            work = _left_behind(left, plan)
            if not work or (attempt and len(ended) == before):
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGTERM, previous)
    return GridOutcome(
        done=tuple(cell_id for cell_id, done in ended.items() if done),
        failed=tuple(cell_id for cell_id, done in ended.items() if done is False),
        skipped=tuple(s.cell.id for s in states if ended.get(s.cell.id) is None),
        interrupted=interrupted,
    )


def _left_behind(cells: Sequence[Cell], plan: RunPlan) -> list[CellState]:
    """Of cells that another process ran, those that it has left before they were done."""
    if not cells:
        return []
    settings = plan.settings
    now = read_states(cells, runs_dir=settings.runs_dir, data_root=settings.data_root)
    return [state for state in now if state.status == "to do"]


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
