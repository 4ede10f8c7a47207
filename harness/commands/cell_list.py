"""`zbench plan --ids`: the cells that are left to run, a line each, for another scheduler."""

from __future__ import annotations

import sys

from harness.errors import UsageError
from harness.execution.scheduling import devices_needed
from harness.grid.workspace import OpenGrid, refuse_changed_inputs


def list_cells(grid: OpenGrid, *, alone: bool) -> int:
    """Prints id, devices and label of each cell to run, the base models' first.

    Args:
        alone: nothing else was asked for.

    Raises:
        UsageError: something was.
    """
    if not alone:
        raise UsageError("--ids: lists cells in this form alone; leave out the other options")
    refuse_changed_inputs(grid.states)
    left = [state for state in grid.takes_on if state.status != "done"]
    for state in sorted(left, key=lambda state: state.cell.train is not None):
        print(state.cell.id, devices_needed(state), state.cell.label, sep="\t")
    if grid.waiting:
        waits = f"{len(grid.waiting)} cells wait for a tuning; the same command lists them later"
        print(f"note: {waits}", file=sys.stderr)
    return 0
