"""`zbench sync`: what the cells' folders hold and MLflow lacks."""

from __future__ import annotations

from harness.commands.display import console, print_line, print_warnings
from harness.errors import mask_secrets
from harness.grid.workspace import OpenGrid
from harness.tracking.address import resolve_uri
from harness.tracking.runs import GridRuns


def sync_command(grid: OpenGrid, *, tracking_uri: str | None) -> int:
    """Replays into MLflow what it lacks."""
    screen = console()
    print_warnings(screen, grid.notices)
    states = grid.states  # their faults are told before MLflow is begun
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    if uri is None:
        print_line(screen, "nothing is logged: the tracking URI is none; name a store with "
                   "--tracking-uri")  # fmt: skip
        return 0
    runs = GridRuns(grid.spec, uri, grid.runs_dir)
    logged = runs.sync(states)
    runs.close()
    # A result that cannot be read is no result to log.
    unread = [s.fault for s in grid.states if s.result is None and s.fault is not None]
    damaged = [line for state in grid.states for line in state.damaged]
    print_warnings(screen, [*filter(None, [runs.store.told]), *unread, *damaged])
    print_line(screen, f"{logged} cells logged to {mask_secrets(uri)}")
    return 0
