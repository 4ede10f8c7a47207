"""One cell on the machine that this process is on: the body of a scheduler's job.

`python -m harness.execution.on_node JOBFILE INDEX` runs a cell of a job's file. SIGTERM ends it
after a checkpoint, with exit code 130. What it prints is the job's own output; the cell's log and
its events are in the cell's folder, as always.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.run import record_failure
from harness.errors import StorageError, TrainingError, UsageError, ZbenchError, mask_secrets
from harness.execution.devices import resolve_devices, worker_threads
from harness.execution.gpu_check import check_gpus
from harness.execution.local import LocalExecutor
from harness.execution.log_lines import LogLines
from harness.execution.node_job import NodeJob, read_job
from harness.execution.plan import RunPlan
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.grid.folders import CHECKPOINTS_FOLDER, cell_folder
from harness.grid.locks import locked
from harness.grid.schema import Cell
from harness.grid.status import CellState, read_states
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.checkpoints import checkpoint_folders, step_of
from harness.records.environment import placed_by
from harness.records.events import CellEnded, Event
from harness.records.files import write_text
from harness.terminal import print_in_any_encoding

if TYPE_CHECKING:
    from harness.tracking.live import Tracker

WAIT_SECONDS = 300.0
"""How long a cell's lock may outlive the process that held it: an NFS server keeps it for its
lease, 90 s as a rule, and a node that lost its network works on until it is told."""
RETRY_SECONDS = 5.0
INTERRUPTED = 130


def run_on_node(
    cell: Cell, plan: RunPlan, *, wait_seconds: float = WAIT_SECONDS
) -> Generator[Event]:
    """Runs one cell on this machine, as `Executor.run` does, and yields its events.

    Another process may still hold the cell, a predecessor that is dead or dying on another machine:
    it waits and tries again. After `wait_seconds` the cell ends as one that is run elsewhere.

    Raises:
        UsageError: this machine has not the devices that the cell needs, or cannot use them.
    """
    settings, deadline = plan.settings, time.monotonic() + wait_seconds
    executor = LocalExecutor()
    while True:
        [state] = read_states([cell], runs_dir=settings.runs_dir, data_root=settings.data_root)
        folder, busy = str(state.folder), state.status == "running"
        if state.status in ("done", "stale"):
            yield CellEnded(cell.id, folder, 0.0, state.fault)
            return
        if not busy:
            here = on_own_devices(state, plan)
            check_gpus(here.devices, [state])
            with contextlib.closing(executor.run([state], here)) as events:  # type: ignore[type-var]
                for event in events:
                    if isinstance(event, CellEnded) and event.elsewhere:
                        busy = True
                    else:
                        yield event
        if not busy:
            return
        if time.monotonic() >= deadline:
            yield CellEnded(cell.id, folder, wait_seconds, elsewhere=True)
            return
        time.sleep(RETRY_SECONDS)


def on_own_devices(state: CellState, plan: RunPlan) -> RunPlan:
    """The plan with as many devices of this machine as a cell needs.

    A CPU device has one thread on any machine, so that it gives the same bits on all of them.

    Raises:
        UsageError: they are not there, or nobody knows which of them are this job's.
    """
    needed, device = devices_needed(state), plan.place.device
    if device != "cpu" and "SLURM_JOB_ID" in os.environ and not _has_own_gpus():
        raise UsageError(
            f"--device {device}: this Slurm job has no GPUs of its own (CUDA_VISIBLE_DEVICES is "
            "not set); ask for them with --gpus-per-node, or give --device cpu"
        )
    if device == "auto" or device.startswith("cuda"):
        devices = resolve_devices(device, workers=needed, num_cells=needed)
    else:
        devices = ("cpu",) * needed
    check_gpus_per_cell([state], len(devices), f"--device {device}")
    threads = 1 if devices[0] == "cpu" else worker_threads(devices, None)
    return replace(plan, devices=devices, settings=replace(plan.settings, threads=threads))


def _has_own_gpus() -> bool:
    return bool(os.environ.get("CUDA_VISIBLE_DEVICES"))


def progress_of(state: CellState) -> tuple[int, int]:
    """How far a cell has come: benchmarks scored, and the step of its newest checkpoint."""
    scored = len(state.cell.tasks) - len(state.missing) + state.trained
    checkpoints = checkpoint_folders(state.folder / CHECKPOINTS_FOLDER)
    return scored, max(map(step_of, checkpoints), default=0)


def run_job(job: NodeJob, index: int, starts: Path) -> int:
    """Runs a cell of a job in this process; returns the exit code.

    `starts` is a file that outlives the job's requeues, and counts those without progress.
    """
    cell, settings = job.cells[index], job.plan.settings
    with contextlib.suppress(OSError):  # only a hub's cache or the like is found through it
        os.chdir(job.folder)
    fault = _held_back(job, cell, starts)
    if fault is not None:
        folder = cell_folder(settings.runs_dir, cell)
        with contextlib.suppress(StorageError), locked(folder):  # unless another process has it
            record_failure(cell, folder, fault)
        _say(f"{cell.label}: FAILED: {fault}")
        return 1
    _say(f"{cell.label}: {placed_by().get('job', f'process {os.getpid()}')}")
    tracker = _tracker(job, cell)
    code = 1
    lines = LogLines({cell.id: cell.label}, _say, warnings=True)
    try:
        with lines, contextlib.closing(run_on_node(cell, job.plan)) as events:
            for event in events:
                if tracker is not None:
                    tracker(event)
                if isinstance(event, CellEnded):
                    code = 0 if event.error is None and not event.elsewhere else 1
                lines(event)
    except KeyboardInterrupt:
        _say(f"{cell.label}: told to stop; it resumes from its checkpoint")
        code = INTERRUPTED
    finally:
        # A scheduler that stops a job does not wait for long.
        seconds = 10.0 if code == INTERRUPTED else 60.0
        if tracker is not None and (problem := tracker.close(timeout=seconds)):
            _say(f"warning: {problem}; `zbench sync` makes up for it")
    return code


def _held_back(job: NodeJob, cell: Cell, starts: Path) -> TrainingError | None:
    """Notes this start; what ends the cell where too many in a row came no further."""
    settings = job.plan.settings
    [state] = read_states([cell], runs_dir=settings.runs_dir, data_root=settings.data_root)
    now = list(progress_of(state))
    before: dict[str, Any] = {}
    with contextlib.suppress(Unreadable):
        before = read_json_object(starts)
    in_a_row = before["in_a_row"] + 1 if before.get("progress") == now else 0
    with contextlib.suppress(StorageError):  # a full disk costs the count, not the cell
        write_text(starts, json.dumps({"progress": now, "in_a_row": in_a_row}) + "\n")
    if in_a_row <= job.max_requeues:
        return None
    return TrainingError(
        f"began {in_a_row + 1} times and came no further (max_requeues: {job.max_requeues}); give "
        "it more time, or lower checkpoint_minutes, then run the same command again"
    )


def _tracker(job: NodeJob, cell: Cell) -> Tracker | None:
    """What logs the cell to a server; None where somebody else does, or nobody."""
    if job.grid is None or job.plan.place.tracking_uri is None:
        return None
    from harness.tracking.live import Tracker

    settings = job.plan.settings
    states = read_states([cell], runs_dir=settings.runs_dir, data_root=settings.data_root)
    return Tracker(job.grid, job.plan.place.tracking_uri, settings.runs_dir, states)


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), mask_secrets(text), flush=True)


@contextlib.contextmanager
def stopped_once() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt; those that follow are the same one, told again.

    A scheduler tells every process of a job, and the job's script tells this one too. A second
    interrupt would kill the workers in the middle of their checkpoint.
    """

    def stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(arguments: list[str]) -> int:
    """Runs the cell that the command line names; returns the exit code."""
    print_in_any_encoding()
    try:
        path, index = Path(arguments[0]), int(arguments[1])
        with stopped_once():
            return run_job(read_job(path), index, path.parent / "starts" / f"{index}.json")
    except KeyboardInterrupt:
        return INTERRUPTED
    except ZbenchError as fault:
        _say(str(fault))
        return fault.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
