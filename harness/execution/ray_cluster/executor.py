"""Runs each cell as a task of a Ray cluster, and resubmits what is lost with a node."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.cell.run import record_failure
from harness.errors import TrainingError, UsageError, one_line, shortened
from harness.execution.on_node import progress_of
from harness.execution.plan import Place, RunPlan
from harness.execution.ray_cluster.connection import (
    check_folders,
    check_sizes,
    connect,
    fits,
    live_nodes,
    resources,
)
from harness.execution.ray_cluster.node_task import Caller, run_cell_task
from harness.execution.scheduling import devices_needed
from harness.grid.schema import Cell, is_base
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, Event, Warned

if TYPE_CHECKING:
    from ray import ObjectRefGenerator

STOP_SECONDS = 130.0
"""Cancelled tasks have this long to write their checkpoints: longer than a worker on the node."""
MOST_SUBMITTED = 1000
"""Tasks that wait or run in Ray at the same time."""


@dataclass
class Placed:
    """A cell and what became of its tasks."""

    state: CellState
    started: float
    restarts: int = 0
    losses: int = 0
    """In a row, without progress."""
    progress: tuple[int, int] = (0, 0)
    """How far it was when its task was last submitted."""
    ended: bool = False


class RayExecutor:
    """Runs cells on a Ray cluster that is there: see docs/ray.md."""

    def prepare(self, states: Sequence[CellState], plan: RunPlan) -> RunPlan:
        """Connects, and refuses what would fail or wait for ever; see `Executor.prepare`."""
        _check_options(plan)
        if not states:
            return plan
        connect()
        nodes = live_nodes()
        device = plan.place.device
        if device == "auto":
            device = "cuda" if any(node.gpus for node in nodes) else "cpu"
        check_sizes(states, nodes, device)
        settings = plan.settings
        root = settings.data_root
        settings = replace(
            settings,
            runs_dir=settings.runs_dir.resolve(),
            data_root=None if root is None else root.resolve(),
        )
        able = [node for node in nodes if fits(node, 1, device)]
        check_folders(able, settings.runs_dir, settings.data_root)
        place = replace(plan.place, device=device)
        return replace(plan, settings=settings, place=place, notes=(*plan.notes, *_notes(plan)))

    def describe(self, plan: RunPlan) -> str:
        """The cluster's nodes and what they have for cells."""
        able = [node for node in live_nodes() if fits(node, 1, plan.place.device)]
        gpus = plan.place.device == "cuda"
        slots = sum(min(node.gpus, node.cpus) if gpus else node.cpus for node in able)
        return f"Ray cluster, {len(able)} nodes, {slots:g} × {plan.place.device}"

    def preview(self, states: Sequence[CellState], plan: RunPlan) -> str:
        """The tasks that would be submitted, in their order."""
        lines = [f"{self.describe(plan)}; a task per cell, in this order:"]
        for state in _in_order(states):
            needed = devices_needed(state)
            gpus = f", {needed} GPU{'s' * (needed > 1)}" if plan.place.device == "cuda" else ""
            lines.append(f"{needed} CPU{'s' * (needed > 1)}{gpus}: {state.cell.label}")
        return "\n".join(lines if states else ["nothing is to be submitted"])

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        """Submits the cells, base models first and then the largest; see `Executor.run`."""
        if not states:
            return
        tasks = CellTasks(plan)
        with _unharmed_by(signal.SIGUSR1):
            try:
                yield from tasks.run(_in_order(states))
            finally:
                tasks.cancel()


@contextlib.contextmanager
def _unharmed_by(number: signal.Signals) -> Iterator[None]:
    """Ignores a signal that would end this process: it does not reach the nodes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, previous)


def _in_order(states: Sequence[CellState]) -> list[CellState]:
    """Base models first, then the largest."""
    return sorted(states, key=lambda state: (not is_base(state.cell), -devices_needed(state)))


def _check_options(plan: RunPlan) -> None:
    """Refuses options that mean nothing on a Ray cluster.

    Raises:
        UsageError: one of them is given.
    """
    place = plan.place
    if place.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {shortened(place.device)}: Ray chooses the GPUs; give auto, cpu or cuda"
        )
    if place.workers is not None:
        raise UsageError(
            "--workers: is for --executor local; on Ray each process has a core of its own, and "
            "max_parallel in the file of --cluster bounds the cells at a time"
        )


def _notes(plan: RunPlan) -> list[str]:
    """What is ignored of the site file."""
    site = plan.place.site
    names = [name for name in ("sbatch", "setup") if getattr(site, name)]
    text = "of the site file is for Slurm; Ray's nodes are as `ray start` found them"
    return [f"{name} {text}" for name in names]


class CellTasks:
    """The tasks of one run."""

    def __init__(self, plan: RunPlan) -> None:
        import ray

        self.plan = plan
        self.caller = Caller.of_this_process()
        self.remote = ray.remote(run_cell_task)
        self.streams: dict[ObjectRefGenerator, Placed] = {}
        self.most = min(plan.place.site.max_parallel or MOST_SUBMITTED, MOST_SUBMITTED)

    def run(self, order: Sequence[CellState]) -> Iterator[Event]:
        """Submits the cells in their order, and yields what their tasks tell."""
        import ray

        waiting = [Placed(state, time.monotonic()) for state in reversed(order)]
        while waiting or self.streams:
            while waiting and len(self.streams) < self.most:
                self._submit(waiting.pop())
            running = list(self.streams)
            ray.wait(running, timeout=1.0)
            for stream in ray.wait(running, num_returns=len(running), timeout=0)[0]:
                placed = self.streams[stream]
                yield from self._told(stream, placed)
                if stream not in self.streams and not placed.ended:
                    waiting.append(placed)

    def _submit(self, placed: Placed) -> None:
        cell = placed.state.cell
        placed.progress = progress_of(placed.state)
        options: dict[str, Any] = {
            "num_returns": "streaming",
            "max_retries": 0,  # Ray's own retry drops as many events as came before
            "name": cell.label,
            **resources(devices_needed(placed.state), self.plan.place.device),
        }
        task = self.remote.options(**options)
        stream = task.remote(cell, self._plan_of(cell), self.caller, placed.restarts)
        self.streams[stream] = placed

    def _plan_of(self, cell: Cell) -> RunPlan:
        """What the node needs of the plan: of thousands of cells, this one's part."""
        settings, own = self.plan.settings, (cell.id,)
        settings = replace(
            settings,
            estimates={key: settings.estimates[key] for key in own if key in settings.estimates},
            pauses={key: settings.pauses[key] for key in own if key in settings.pauses},
        )
        return RunPlan(settings, place=Place(device=self.plan.place.device))

    def _told(self, stream: ObjectRefGenerator, placed: Placed) -> Iterator[Event]:
        """The events of a stream's next batch; or what follows from its end."""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            for event in ray.get(next(stream)):
                placed.ended = placed.ended or isinstance(event, CellEnded)
                yield event
            return
        except StopIteration:
            reason = "its task ended without a word; see the log of its worker in Ray"
        except TaskCancelledError:
            reason = "its task was cancelled in Ray; the same command resumes from its checkpoint"
        except RayTaskError as fault:
            cause = fault.cause
            reason = f"its task failed: {type(cause).__name__}: {one_line(cause)}"
        except RayError as fault:
            if placed.ended:
                reason = ""
            elif isinstance(fault, _lost()):
                del self.streams[stream]
                ray.cancel(stream, force=True)  # of a batch alone that was lost with its node
                yield from self._after_loss(placed, type(fault).__name__)
                return
            else:
                reason = f"{type(fault).__name__}: {one_line(fault)}"
        del self.streams[stream]
        if not placed.ended:
            yield self._failed(placed, reason)

    def _after_loss(self, placed: Placed, kind: str) -> Iterator[Event]:
        """Says that a cell is submitted again; or ends it, where it comes no further."""
        cell, settings = placed.state.cell, self.plan.settings
        [placed.state] = read_states(
            [cell], runs_dir=settings.runs_dir, data_root=settings.data_root
        )
        further = progress_of(placed.state) > placed.progress
        placed.losses = 1 if further else placed.losses + 1
        most = self.plan.place.site.max_requeues
        if placed.losses > most:
            yield self._failed(
                placed,
                f"its node or worker was lost {placed.losses} times in a row without progress "
                f"(last: {kind}; max_requeues is {most}); see what ends them in Ray's logs",
            )
            return
        placed.restarts += 1
        yield Warned(
            cell.id,
            f"its node or worker was lost ({kind}); {_next(placed.state)} on another",
            restarts=True,
        )

    def _failed(self, placed: Placed, reason: str) -> CellEnded:
        placed.ended = True
        cell, folder = placed.state.cell, placed.state.folder
        record_failure(cell, folder, TrainingError(reason))
        return CellEnded(cell.id, str(folder), time.monotonic() - placed.started, reason)

    def cancel(self) -> None:
        """Has what is left write checkpoints, and waits for it; a second interrupt kills it."""
        import ray

        deadline = time.monotonic() + STOP_SECONDS
        try:
            for stream in self.streams:
                ray.cancel(stream, force=False)  # KeyboardInterrupt in the task
            while self.streams and time.monotonic() < deadline:
                left = list(self.streams)
                ready, _ = ray.wait(left, num_returns=len(left), timeout=0.5)
                for stream in ready:
                    if _is_over(stream):
                        del self.streams[stream]
        finally:
            for stream in self.streams:
                ray.cancel(stream, force=True)


def _next(state: CellState) -> str:
    """What a cell does that is submitted again."""
    _, step = progress_of(state)
    if state.trained:
        return "is scored"
    return f"resumes from step {step}" if step else "begins anew"


def _lost() -> tuple[type[Exception], ...]:
    """What Ray raises where a task's node or process is lost, or killed for its memory."""
    from ray import exceptions as ray

    return (
        ray.NodeDiedError,
        ray.WorkerCrashedError,
        ray.OutOfMemoryError,
        ray.ObjectLostError,
    )


def _is_over(stream: ObjectRefGenerator) -> bool:
    """Takes what comes next of a cancelled task, and says whether that was its end."""
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(next(stream))
    except (StopIteration, RayError):
        return True
    return False
