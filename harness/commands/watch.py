"""`zbench status --watch`: how far a grid is, wherever it runs, until nothing runs any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from harness.commands.display import (
    cell_text,
    console,
    grid_warnings,
    new_table,
    print_line,
    print_warnings,
)
from harness.commands.live import Live, live_cells, queued_jobs
from harness.commands.status import (
    counts_line,
    failed_line,
    print_status,
    queued_line,
    running_line,
    shown_status,
)
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from harness.execution.slurm.queue import QueuedCell

SCREEN_SECONDS, LOG_SECONDS = 5.0, 180.0
"""Between two views, on a terminal and elsewhere."""
LOOK_SECONDS = 5.0
"""Between two looks for cells that have failed, where the output is no terminal."""
QUIET_SECONDS = 30.0
"""So long nothing runs before the end is believed while cells are to do: a process is starting,
say, or one has just died."""
MOST_FAILED = 10
"""Failed cells that a terminal shows while others run; the end shows all."""
MOST_QUEUED = 10
"""Queued cells that are shown while others run."""


def watch_command(grid: OpenGrid, *, seconds: float | None) -> int:
    """Shows a grid again and again, and at the end as `status` does; ctrl-C ends it too."""
    grid, screen = replace(grid, thorough=False), console()
    print_warnings(screen, grid.notices)
    with contextlib.suppress(KeyboardInterrupt):
        _watch(grid, screen, seconds)
        grid = grid.unfolded()
        print_status(screen, grid, live_cells(grid.states, queued_jobs(grid.runs)))
        print_warnings(screen, grid_warnings(grid.states))
    return 0


def _watch(grid: OpenGrid, screen: Console, seconds: float | None) -> None:
    if screen.is_terminal:
        with _screen_view(screen, grid) as show:
            _look_until_quiet(grid, show, seconds or SCREEN_SECONDS)
    else:
        pause = seconds or LOG_SECONDS
        _look_until_quiet(grid, _log_view(screen, pause), min(LOOK_SECONDS, pause))


Show = Callable[[OpenGrid, dict[str, Live]], None]


def _look_until_quiet(grid: OpenGrid, show: Show, seconds: float) -> None:
    quiet_since: float | None = None
    jobs: dict[str, QueuedCell] = {}
    while True:
        start = time.monotonic()
        jobs = queued_jobs(grid.runs, jobs)
        live = live_cells(grid.states, jobs)
        show(grid, live)
        if live:
            quiet_since = None
        elif all(state.status != "to do" for state in grid.states) and not grid.waiting:
            return
        else:
            quiet_since = start if quiet_since is None else quiet_since
            if start - quiet_since >= QUIET_SECONDS:
                return
        # A look at thousands of cells takes a while: a tenth of a core at most.
        time.sleep(max(seconds, 9 * (time.monotonic() - start)))
        grid = grid.unfolded()


@contextlib.contextmanager
def _screen_view(screen: Console, grid: OpenGrid) -> Iterator[Show]:
    from rich.live import Live as Screen

    with Screen(console=screen, transient=True, auto_refresh=False) as view:
        yield lambda grid, live: view.update(_page(screen, grid, live), refresh=True)


def _page(screen: Console, grid: OpenGrid, live: dict[str, Live]) -> RenderableType:
    """What a terminal shows: the most urgent first, since what does not fit is cut below."""
    from rich.console import Group
    from rich.text import Text

    now = datetime.now().astimezone()
    parts: list[RenderableType] = [
        cell_text(f"{now:%H:%M:%S}  {grid.spec.name}: {counts_line(grid.states, live)}")
    ]
    failed = _failed(grid, live)
    parts += [cell_text(failed_line(state)) for state in failed[:MOST_FAILED]]
    if len(failed) > MOST_FAILED:
        parts.append(cell_text(f"... and {len(failed) - MOST_FAILED} more failed"))
    listed = [state for state in grid.states if state.cell.id in live]
    running = [state for state in listed if not live[state.cell.id].waits]
    if running:
        parts.append(_running_table(running, live))
    queued = [state for state in listed if live[state.cell.id].waits]
    parts += [cell_text(queued_line(state, live[state.cell.id])) for state in queued[:MOST_QUEUED]]
    if len(queued) > MOST_QUEUED:
        parts.append(cell_text(f"... and {len(queued) - MOST_QUEUED} more queued"))
    parts.append(Text("ctrl-C ends this view; the cells run on", style="dim"))
    return Group(*parts)


def _failed(grid: OpenGrid, live: dict[str, Live]) -> list[CellState]:
    return [state for state in grid.states if shown_status(state, live) == "failed"]


def _running_table(running: list[CellState], live: dict[str, Live]) -> RenderableType:
    table = new_table(["running", "where", "since", "how far"], [])
    for state in running:
        one = live[state.cell.id]
        far = ", ".join(filter(None, [str(one.progress), one.silence]))
        row = (state.cell.label, one.place, one.since.removeprefix("since "), far)
        table.add_row(*map(cell_text, row))
    return table


def _log_view(screen: Console, pause: float) -> Show:
    """A block of lines now and then, and a failed cell at once."""
    told: set[str] = set()
    last: float | None = None

    def show(grid: OpenGrid, live: dict[str, Live]) -> None:
        nonlocal last
        failed = _failed(grid, live)
        for state in failed:
            if state.cell.id not in told:
                print_line(screen, failed_line(state))
        told.clear()
        told.update(state.cell.id for state in failed)
        if last is not None and time.monotonic() - last < pause:
            return
        last = time.monotonic()
        now = datetime.now().astimezone()
        print_line(screen, f"{now:%H:%M:%S}  {counts_line(grid.states, live)}")
        listed = [(state, live[state.cell.id]) for state in grid.states if state.cell.id in live]
        for state, one in listed:
            if not one.waits:
                print_line(screen, running_line(state, one))
        queued = [(state, one) for state, one in listed if one.waits]
        for state, one in queued[:MOST_QUEUED]:
            print_line(screen, queued_line(state, one))
        if len(queued) > MOST_QUEUED:
            print_line(screen, f"... and {len(queued) - MOST_QUEUED} more queued")

    return show
