"""`zbench run-cell`: one cell in this process, or in one process per GPU that trains it."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from typing import Literal

from harness.cell.memory import SmallerBudget
from harness.cell.run import describe, run_cell
from harness.cell.settings import RunSettings
from harness.commands.display import (
    cell_records,
    console,
    print_cells,
    print_json,
    print_line,
    print_warnings,
)
from harness.commands.progress import Notices, progress
from harness.execution.devices import resolve_devices, take_device, worker_threads
from harness.execution.gpu_check import check_gpus
from harness.execution.plan import RunPlan
from harness.execution.run_grid import run_grid
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.execution.worker import log_progress, logging_beside_the_screen
from harness.grid.folders import LOG_FILE, cell_folder
from harness.grid.locks import CellBusy, holder
from harness.grid.selection import find_cell
from harness.grid.workspace import OpenGrid, prepare_run, refuse_changed_inputs
from harness.records.event_file import EventFiles
from harness.records.events import CellEnded, Emit, Event
from harness.tracking.address import resolve_uri
from harness.tracking.live import Tracker
from harness.tracking.trackers import Trackers, start_besides
from harness.training.signals import handle_signals

logger = logging.getLogger(__name__)


def run_cell_command(
    grid: OpenGrid,
    name: str,
    *,
    tracking_uri: str | None,
    device: str,
    as_json: bool,
    allow_data_mismatch: bool = False,
) -> int:
    """Runs the cell that `name` means, showing it as it goes; logs to MLflow beside it."""
    cell = find_cell(grid.cells, name, grid=grid.argument)
    grid = dataclasses.replace(grid, cells=[cell])
    warnings = [*grid.notices, *prepare_run(grid, allow_data_mismatch=allow_data_mismatch)]
    refuse_changed_inputs(grid.states)
    needed = devices_needed(grid.states[0])
    devices = resolve_devices(device, workers=None if needed > 1 else 1, num_cells=needed)
    check_gpus_per_cell(grid.states, len(devices), f"--device {device}")
    check_gpus(devices, grid.states)
    environment = dict(os.environ)
    torch_device = take_device(devices[0]) if needed == 1 else devices[0]
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    mlflow = None if uri is None else Tracker(grid.spec, uri, grid.runs_dir, grid.states)
    besides, missing = start_besides(grid.spec, grid.runs_dir, grid.states)
    trackers = Trackers(mlflow, besides)
    screen = console(quiet=as_json)
    print_warnings(screen, [*warnings, *missing])
    if uri is None:
        print_line(screen, "MLflow: not logged (none)")
    notices = Notices(screen, grid.states)
    settings = RunSettings(
        runs_dir=grid.runs_dir,
        data_root=grid.data_root,
        device=torch_device,
        threads=worker_threads(devices, None),
        data_contents=grid.data_contents,
    )
    with progress(screen, grid.states, grid.num_rows) as show:

        def emit(event: Event) -> None:
            for listener in (show, notices, trackers):
                listener(event)

        try:
            ended = _run(grid, RunPlan(settings=settings, devices=devices), needed, emit)
        except (CellBusy, KeyboardInterrupt):
            trackers.close(timeout=10)  # a scheduler that stops us does not wait for long
            raise
    problem = trackers.close()
    if ended == "again":  # in the place of this process, whose memory is free with it
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    after = grid.read_states()
    print_warnings(screen, trackers.told)
    print_cells(screen, after, problem)
    for line in trackers.notes:
        print_line(screen, line)
    if as_json:
        print_json({"cells": cell_records(after)})
    return 1 if ended == "failed" else 0


def _run(
    grid: OpenGrid, plan: RunPlan, needed: int, emit: Emit
) -> Literal["done", "failed", "again"]:
    """Runs the one cell of `grid`; `again` asks for a fresh process, since the memory was full.

    Raises:
        CellBusy: another process runs it.
        KeyboardInterrupt: it was stopped.
    """
    if needed > 1:
        outcome = run_grid(grid.states, plan, [emit])
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not (outcome.done or outcome.failed) and grid.read_states()[0].status != "done":
            folder = cell_folder(grid.runs_dir, grid.cells[0])
            raise CellBusy(f"{folder}: {holder(folder)} is running this cell; wait for it")
        return "failed" if outcome.failed else "done"
    cell, ended = grid.cells[0], False
    folder = cell_folder(grid.runs_dir, cell)

    def logged(event: Event) -> None:
        nonlocal ended
        ended = ended or isinstance(event, CellEnded)
        log_progress(event)
        files.write(event)
        emit(event)

    with logging_beside_the_screen(folder / LOG_FILE), EventFiles({cell.id: folder}) as files:
        try:
            with handle_signals():  # SIGUSR1 is a training's, and no end before it begins
                run_cell(cell, plan.settings, logged)
        except CellBusy:
            raise
        except SmallerBudget as fault:
            logger.info("%s: %s", cell.label, fault)
            return "again"
        except Exception as fault:  # whatever fails a cell is its end; the log has its traceback
            logger.exception("%s failed", cell.label)
            if not ended:  # a fault outside of the cell's own work: its folder, an import
                logged(CellEnded(cell.id, str(folder), 0.0, describe(fault)))
            return "failed"
    return "done"
