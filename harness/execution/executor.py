"""What an executor is: it places cells on machines, and tells what becomes of them.

What happens on a machine, the processes, their GPUs, a full memory, signals and checkpoints, is the
local executor's everywhere: the others call it there, for one cell (`harness.execution.on_node`).
`harness.testing.executor_laws` holds what every executor obeys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from harness.execution.plan import RunPlan
from harness.grid.status import CellState
from harness.records.events import Event


class Executor(Protocol):
    """Places cells and tells what becomes of them."""

    def prepare(self, states: Sequence[CellState], plan: RunPlan) -> RunPlan:
        """The plan with the devices that are known here, once all is known to be in order.

        Called before anything runs or is submitted, with all cells that the command may run.

        Raises:
            UsageError: a cell cannot run there: too many GPUs, an engine that is not there, a runs
                folder that its machines do not see; one line each.
        """

    def describe(self, plan: RunPlan) -> str:
        """Where the cells run, in a few words for the summary: `2 × cuda`, `Slurm cluster x`."""

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        """Runs cells, the first ones first, and yields their events.

        - Each cell runs through `run_cell` in a process of its own device(s), which have as many
          devices as `devices_needed` says, and no two cells share a device at a time.
        - The events of a cell come in their order. A `CellEnded` is the last one of each cell, and
          comes once, also for a cell whose process or machine dies: that cell fails alone, with the
          reason recorded in its folder (`record_failure`). After `Warned(restarts=True)` a fresh
          process begins the cell again.
        - A cell that waits in a scheduler's queue gives `CellQueued`, and no more where the
          executor returns while it waits.
        - When the iterator is closed, or interrupted by KeyboardInterrupt, the processes get
          SIGTERM, time to write a checkpoint, and then SIGKILL; none is left when it returns. Jobs
          of a scheduler that need no parent stay, and are told.
        """


@runtime_checkable
class Submits(Protocol):
    """An executor that submits jobs, and can say what it would submit."""

    def preview(self, states: Sequence[CellState], plan: RunPlan) -> str:
        """What `run` would submit, as a text of several lines; after `prepare`."""
