"""What each command does, once its arguments are parsed; returns the exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from typing import TYPE_CHECKING

from harness.cell.memory import SmallerBudget
from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.commands import display
from harness.commands import progress as progress_display
from harness.commands.display import print_json
from harness.commands.notices import Notices, grid_warnings, print_warnings
from harness.commands.status import status_records
from harness.estimate.probe import expected_seconds
from harness.execution.devices import resolve_devices, worker_threads
from harness.execution.plan import RunPlan
from harness.execution.run_grid import run_grid
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.grid.folders import CellBusy
from harness.grid.selection import find_cell
from harness.grid.workspace import OpenGrid, prepare_run, refuse_changed_inputs
from harness.records.events import Event
from harness.training.signals import handle_signals

if TYPE_CHECKING:
    pass


def run_grid_command(
    grid: OpenGrid,
    *,
    tracking_uri: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
    allow_data_mismatch: bool = False,
) -> int:
    """Runs what is to do, showing it as it goes; logs to MLflow beside it."""
    from harness.tracking.live import Tracker
    from harness.tracking.uri import resolve_uri

    warnings = prepare_run(grid, allow_data_mismatch=allow_data_mismatch)
    states = grid.states()
    refuse_changed_inputs(states)
    work = [state for state in states if state.status in ("to do", "failed")]
    devices = resolve_devices(device, workers=workers, num_cells=sum(map(devices_needed, work)))
    check_gpus_per_cell(work, len(devices), f"--device {device}")
    console = display.console(quiet=as_json)
    if workers is not None and devices[:1] != ("cpu",) and work:
        console.print("warning: --workers is for the CPU; every GPU has one worker")
    display.print_summary(console, grid.spec, states, grid.num_rows(), devices)
    print_warnings(console, warnings)
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    tracker = Tracker(grid.spec, uri, grid.runs_dir, states)
    tracker.start()
    plan = RunPlan(
        settings=RunSettings(
            runs_dir=grid.runs_dir,
            data_root=grid.data_root,
            threads=worker_threads(devices, workers),
            estimates=expected_seconds(work, devices, grid.runs_dir, grid.num_rows()),
        ),
        devices=devices,
    )
    with progress_display.progress(console, work, grid.num_rows()) as show:
        outcome = run_grid(states, plan, [show, Notices(console, states), tracker])
    after = grid.states()
    problem = tracker.close()
    display.print_outcome(console, after, outcome, uri, problem)
    print_warnings(console, grid_warnings(after))
    if as_json:
        print_json(
            {
                "outcome": dataclasses.asdict(outcome),
                "warnings": warnings + grid_warnings(after),
                "cells": status_records(after),
            }
        )
    if outcome.interrupted:
        raise KeyboardInterrupt
    return 1 if outcome.failed else 0


def run_cell_command(
    grid: OpenGrid,
    name: str,
    *,
    tracking_uri: str | None,
    device: str,
    as_json: bool,
    allow_data_mismatch: bool = False,
) -> int:
    """Runs one cell in this process; one that several devices train, in worker processes."""
    from harness.tracking.live import Tracker
    from harness.tracking.uri import resolve_uri

    cell = find_cell(grid.cells, name)
    one = dataclasses.replace(grid, cells=[cell])
    warnings = prepare_run(one, allow_data_mismatch=allow_data_mismatch)
    states = one.states()
    refuse_changed_inputs(states)
    needed = devices_needed(states[0])
    devices = resolve_devices(device, workers=None if needed > 1 else 1, num_cells=needed)
    check_gpus_per_cell(states, len(devices), f"--device {device}")
    tracker = Tracker(
        grid.spec, resolve_uri(grid.spec, grid.runs_dir, tracking_uri), grid.runs_dir, states
    )
    tracker.start()
    console = display.console(quiet=as_json)
    print_warnings(console, warnings)
    notices = Notices(console, states)
    settings = RunSettings(
        runs_dir=grid.runs_dir,
        data_root=grid.data_root,
        device=devices[0],
        threads=worker_threads(devices, None),
    )
    failed = again = False
    with progress_display.progress(console, states, grid.num_rows()) as show:

        def tell(event: Event) -> None:
            show(event)
            notices(event)
            tracker(event)

        try:
            if needed > 1:
                plan = RunPlan(settings=settings, devices=devices)
                outcome = run_grid(states, plan, [tell])
                failed = bool(outcome.failed)
                if outcome.interrupted:
                    raise KeyboardInterrupt
            else:
                with handle_signals():  # SIGUSR1 is a training's, and no end before it begins
                    run_cell(cell, settings, tell)
        except (CellBusy, KeyboardInterrupt):
            tracker.close(timeout=10)  # a scheduler that stops us does not wait for long
            raise
        except SmallerBudget:
            again = True
        except Exception:
            traceback.print_exc()
            failed = True
    problem = tracker.close()
    if again:  # in the place of this process, whose memory is free with it
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    after = one.states()
    display.print_cells(console, after, problem)
    if as_json:
        print_json({"cells": status_records(after)})
    return 1 if failed else 0
