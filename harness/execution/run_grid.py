"""Runs a grid's cells with an executor, and counts what is done, failed and skipped."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from harness.execution.executor import Executor
from harness.execution.local import LocalExecutor
from harness.execution.plan import RunPlan
from harness.grid.locks import any_silent
from harness.grid.schema import Cell, is_base
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellQueued, CellStarted, Emit


@dataclass(frozen=True)
class GridOutcome:
    """Ids of the cells by how their run ended."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    """Done before, running elsewhere, paused, submitted, or not reached."""
    submitted: tuple[str, ...] = ()
    """Waiting or running in a scheduler's queue, which needs no parent."""
    interrupted: bool = False
    """Whether ctrl-C or SIGTERM ended the run."""


def run_grid(
    states: Sequence[CellState],
    plan: RunPlan,
    listeners: Sequence[Emit],
    executor: Executor | None = None,
) -> GridOutcome:
    """Runs the cells that are to do or have failed, and passes every event to every listener.

    Untrained base models come first: their scores tell whether the evaluation is right (see
    `harness.analysis.canary`) before the others are paid for. A cell's failure does not stop the
    others. Without an executor this machine runs them. Cells that another process runs are looked
    at again at the end, and taken on where it has left them (it was killed, say); so are those that
    an executor had no room for, once others have ended. An interrupt
    (ctrl-C, SIGTERM) stops the workers once they have written a checkpoint; a second one kills
    them. What is stored is kept.
    """
    executor = executor or LocalExecutor()
    work = [state for state in states if state.status in ("to do", "failed")]
    # Of those that run, the ones that a scheduler runs: whoever follows it sees them to their end.
    work += [s for s in states if s.status == "running" and s.cell.id in plan.queued]
    work.sort(key=_turn)
    open_ids = {state.cell.id for state in states if state.status not in ("done", "stale")}
    ended: dict[str, bool | None] = {}  # by id: whether it is done; None: its training paused
    queued: dict[str, None] = {}
    begun: set[str] = set()  # ids of those that the executor took on
    interrupted = False
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for attempt in itertools.count():
            before = len(ended)
            with contextlib.closing(executor.run(work, plan)) as events:  # type: ignore[type-var]
                for event in events:
                    if isinstance(event, CellQueued | CellStarted | CellEnded):
                        begun.add(event.cell_id)
                    if isinstance(event, CellQueued):
                        queued[event.cell_id] = None
                    elif isinstance(event, CellEnded):
                        queued.pop(event.cell_id, None)
                    if isinstance(event, CellEnded) and not event.elsewhere:
                        ended[event.cell_id] = None if event.paused else event.error is None
                    for listener in listeners:
                        listener(event)
            left_ids = open_ids - ended.keys() - queued.keys()
            left = [state.cell for state in states if state.cell.id in left_ids]
            refused = [state for state in work if state.cell.id not in begun]
            refused_ids = {state.cell.id for state in refused}
            work = _left_behind([cell for cell in left if cell.id not in refused_ids], plan)
            if len(ended) > before:  # there may be room for them now
                work += refused
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
        submitted=tuple(queued),
        interrupted=interrupted,
    )


def _turn(state: CellState) -> tuple[bool, float]:
    """Where a cell stands in the order: base models first, then those with the most rows, so that
    at the end no machine waits for a long cell that began last."""
    return not is_base(state.cell), -(state.cell.fraction or 0.0)


def _left_behind(cells: Sequence[Cell], plan: RunPlan) -> list[CellState]:
    """Of cells that another process ran, those that it has left before they were done.

    Where only a heartbeat tells whether it lives, the next one is waited for.
    """
    if not cells:
        return []
    settings = plan.settings
    now = read_states(cells, runs_dir=settings.runs_dir, data_root=settings.data_root)
    if any_silent([state.folder for state in now if state.status == "running"]):
        now = read_states(cells, runs_dir=settings.runs_dir, data_root=settings.data_root)
    return [state for state in now if state.status == "to do"]


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
