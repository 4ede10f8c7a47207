"""What runs on a node of a Ray cluster: one cell, or the probe of what the node sees."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.errors import StorageError, UsageError
from harness.execution.devices import available_cores
from harness.execution.on_node import WAIT_SECONDS, run_on_node
from harness.execution.plan import RunPlan
from harness.grid.schema import Cell
from harness.grid.shared_folder import answer_probe
from harness.records.environment import RAY_JOB, RAY_RESTARTS
from harness.records.events import Encoding, Event, Scoring, StepDone

BATCH_SECONDS = 1.0
BATCH_EVENTS = 50
"""Of one message: a larger one would lie in the memory of its node, and be lost with it."""
MANY = (StepDone, Encoding, Scoring)
"""Events of which a cell has thousands; the others are sent at once."""
PASSED_ON = ("HF_", "ZBENCH_")
"""Beginnings of the names of environment variables that the nodes get from the driver."""


@dataclass(frozen=True)
class Caller:
    """What a task takes over from the process that submits it."""

    folder: str
    """Relative paths of caches, in variables, may count from it."""
    environment: Mapping[str, str]

    @classmethod
    def of_this_process(cls) -> Caller:
        """This process, as one that submits tasks."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        return cls(os.getcwd(), passed)

    def take_over(self) -> None:
        """Makes this process resemble it."""
        os.environ.update(self.environment)
        with contextlib.suppress(OSError):
            os.chdir(self.folder)


def run_cell_task(
    cell: Cell, plan: RunPlan, caller: Caller, restarts: int
) -> Generator[list[Event]]:
    """Runs a cell on the devices that Ray gave this process, and yields its events in batches.

    Args:
        cell: to be run.
        plan: with the kind of device; which ones they are is the node's to say.
        caller: who submits it.
        restarts: how many predecessors were lost; what is left of one may hold the cell's lock for
            a while.
    """
    import ray

    caller.take_over()
    context = ray.get_runtime_context()
    os.environ |= {RAY_JOB: context.get_job_id(), RAY_RESTARTS: str(restarts)}
    if plan.place.device == "cuda":
        os.environ["OMP_NUM_THREADS"] = str(_threads_of_gpu())
    wait_seconds = WAIT_SECONDS if restarts else 0.0
    batch: list[Event] = []
    sent = time.monotonic()
    with contextlib.closing(run_on_node(cell, plan, wait_seconds=wait_seconds)) as events:
        for event in events:
            batch.append(event)
            late = time.monotonic() - sent > BATCH_SECONDS
            if late or len(batch) >= BATCH_EVENTS or not isinstance(event, MANY):
                yield batch
                batch, sent = [], time.monotonic()


def _threads_of_gpu() -> int:
    """CPU threads for each GPU of this node: Ray confines no task to its share of the cores."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    gpus = [node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == own]
    return max(1, available_cores() // int(max(gpus, default=1)))


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself and of the folders that it must see."""

    host: str
    zbench: str
    fault: str | None
    """Why it cannot run cells, in one line."""


def look_from_node(probe: Path, data_root: Path | None) -> NodeReport:
    """Answers the probe of the runs folder, and looks for the local data."""
    fault = None
    try:
        answer_probe(probe)
    except (UsageError, StorageError) as error:
        fault = str(error)
    if fault is None and data_root is not None and not data_root.is_dir():
        fault = f"{data_root}: is not there; choose a shared folder with --data-root"
    return NodeReport(platform.node(), __version__, fault)
