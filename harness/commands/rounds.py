"""Runs a grid round by round: trials, and then the settings that they have chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.commands.display import print_line, print_warnings
from harness.commands.jobs import Jobs
from harness.commands.progress import Notices, progress
from harness.commands.tuning import tuning_lines
from harness.errors import StorageError
from harness.estimate.probe import expected_seconds
from harness.execution.executor import Executor
from harness.execution.plan import RunPlan
from harness.execution.run_grid import GridOutcome, run_grid
from harness.grid.draws import write_draws
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid
from harness.records.events import Emit
from harness.tracking.trials import write_studies

if TYPE_CHECKING:
    from rich.console import Console

    from harness.tracking.trackers import Trackers

LEFT = ("to do", "failed")
"""The statuses of what a run takes on."""


def run_rounds(
    grid: OpenGrid, plan: RunPlan, screen: Console, tracker: Trackers, executor: Executor
) -> tuple[OpenGrid, GridOutcome]:
    """Runs what is to do, then what its results have decided, until nothing new comes of it.

    A grid without tunings has one round. A cell is tried once; one that failed does not end the
    rounds. A trial that diverged has ended, and is not tried again; with a pruner trials are taken
    on for some epochs at a time. Cells that were only submitted end the rounds: the same command
    again goes on from what their jobs have left.

    Returns:
        The grid as it is afterwards, and what became of the cells in all rounds together.
    """
    outcome = GridOutcome(done=(), failed=(), skipped=())
    tried: set[tuple[str, int | None]] = set()  # with the epochs that a trial is trained for
    while True:
        pauses = grid.pauses
        states = [
            state
            for state in grid.takes_on
            if state.cell.id not in outcome.failed
            and (state.cell.id, pauses.get(state.cell.id)) not in tried
        ]
        chosen = [state for state in states if state.status in (*LEFT, "running")]
        if tried and not any(state.status in LEFT for state in states):
            return grid, outcome
        work = [state for state in states if state.status in LEFT]
        work += [s for s in states if s.status == "running" and s.cell.id in plan.queued]
        _keep(screen, grid)
        jobs = Jobs()
        listeners: list[Emit] = [jobs, Notices(screen, states), tracker]
        with progress(screen, chosen if work else [], grid.num_rows) as show:
            found = run_grid(states, _planned(grid, plan, work), [show, *listeners], executor)
        for line in jobs.lines():
            print_line(screen, line)
        outcome = _joined(outcome, found)
        tried |= {(state.cell.id, pauses.get(state.cell.id)) for state in states}
        if not chosen:
            _write_studies(screen, grid)
            return grid, outcome
        before = {state.cell.id for state in grid.states}
        grid = grid.unfolded()
        _write_studies(screen, grid)
        if found.interrupted or found.submitted:  # what follows is known once the jobs have ended
            return grid, outcome
        _tell(screen, tracker, grid, [one for one in grid.states if one.cell.id not in before])


def _planned(grid: OpenGrid, plan: RunPlan, work: Sequence[CellState]) -> RunPlan:
    """The plan of a round: with what is expected of its cells, and the rows of those before."""
    settings = replace(
        plan.settings,
        estimates=expected_seconds(work, plan.devices, grid.runs_dir, grid.num_rows),
        data_contents=grid.data_contents,
        pauses=grid.pauses,
    )
    return replace(plan, settings=settings)


def _keep(screen: Console, grid: OpenGrid) -> None:
    """Keeps what was drawn, before anything of it is trained."""
    try:
        write_draws(grid.tunings, grid.runs_dir)
    except StorageError as fault:
        print_warnings(screen, [f"what was drawn is not kept, and will be drawn again: {fault}"])


def _write_studies(screen: Console, grid: OpenGrid) -> None:
    """Writes the view of the tunings; one that cannot be written stops nothing."""
    try:
        write_studies(grid.spec.name, grid.tunings, grid.runs_dir)
    except StorageError as fault:
        print_warnings(screen, [f"the studies of the tunings are not written: {fault}"])


def _tell(screen: Console, tracker: Trackers, grid: OpenGrid, new: Sequence[CellState]) -> None:
    """Says what was chosen, and makes the cells that follow from it known to the trackers."""
    if not new:
        return
    tracker.add(new)
    for line in tuning_lines(grid):
        print_line(screen, line)


def _joined(one: GridOutcome, other: GridOutcome) -> GridOutcome:
    """What became of the cells in two rounds."""
    ended = {*one.done, *one.failed, *other.done, *other.failed}
    return GridOutcome(
        done=one.done + other.done,
        failed=one.failed + other.failed,
        skipped=tuple(dict.fromkeys(i for i in one.skipped + other.skipped if i not in ended)),
        submitted=other.submitted,
        interrupted=other.interrupted,
    )


def is_done(grid: OpenGrid) -> bool:
    """Whether nothing is left to do: a trial that diverged, or was stopped early, has ended."""
    settled = grid.settled
    done = all(
        state.status in ("done", "pruned") or state.cell.id in settled for state in grid.states
    )
    return done and not grid.waiting


def is_submitted(grid: OpenGrid, outcome: GridOutcome) -> bool:
    """Whether all that can be run now is done, or in a scheduler's queue.

    What waits for those cells, as trials of a tuning do, is taken on by the next command.
    """
    submitted = {*outcome.submitted}
    left = (state.cell.id for state in grid.takes_on if state.status != "done")
    return bool(submitted) and submitted.issuperset(left)
