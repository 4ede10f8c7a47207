"""Running a grid's cells: which are to do, who runs them, and what came of it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

from harness.execution.local import run_local
from harness.execution.plan import GridOutcome, RunPlan
from harness.grid.schema import is_base
from harness.grid.status import CellState
from harness.records.events import CellEnded, Emit, Event

Executor = Callable[[Sequence[CellState], "RunPlan"], Iterator[Event]]

EXECUTORS: dict[str, Executor] = {"local": run_local}


def run_grid(
    states: Sequence[CellState], plan: RunPlan, listeners: Sequence[Emit], executor: str = "local"
) -> GridOutcome:
    """Runs what is to do, telling every event to every listener.

    Untrained base models come first: their scores tell whether the evaluation is right (see
    `harness.evaluation.canary`) before the others are paid for. A cell's failure does not stop the
    others. An interrupt (ctrl-C, SIGTERM) stops the workers once they have written a checkpoint,
    and loses nothing that is stored; a second one stops them now.

    Args:
        states: the grid's cells, as far as they are.
        plan: where they run.
        listeners: the display, the tracker.
        executor: a name of EXECUTORS.
    """
    work = [state for state in states if state.status in ("to do", "failed")]
    work.sort(key=lambda state: not is_base(state.cell))
    done: list[str] = []
    failed: list[str] = []
    interrupted = False
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.closing(EXECUTORS[executor](work, plan)) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, CellEnded) and not event.elsewhere:
                    (done if event.error is None else failed).append(event.cell_id)
                for listener in listeners:
                    listener(event)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGTERM, previous)
    skipped = [state.cell.id for state in states if state.cell.id not in {*done, *failed}]
    return GridOutcome(tuple(done), tuple(failed), tuple(skipped), interrupted)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
