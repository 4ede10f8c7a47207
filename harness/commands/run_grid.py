"""`zbench run-grid`: what is to do of a grid, shown as it runs and logged to MLflow."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cell.settings import RunSettings
from harness.commands.display import (
    cell_records,
    cell_text,
    console,
    grid_warnings,
    new_table,
    print_cells,
    print_json,
    print_line,
    print_plan_warnings,
    print_tracking_problem,
    print_warnings,
)
from harness.commands.progress import Notices, progress
from harness.errors import UsageError, did_you_mean, mask_secrets, shortened
from harness.estimate.plan import PlanRow, plan_rows
from harness.estimate.probe import expected_seconds
from harness.execution.devices import RunPlan, resolve_devices, worker_threads
from harness.execution.run_grid import EXECUTORS, GridOutcome, run_grid
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.grid.locks import holder
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid, prepare_run, refuse_changed_inputs
from harness.tracking.address import DATABASE_FILE, is_own, resolve_uri
from harness.tracking.database import is_behind
from harness.tracking.metrics import content_hash

if TYPE_CHECKING:
    from rich.console import Console

    from harness.tracking.live import Tracker


def run_grid_command(
    grid: OpenGrid,
    *,
    tracking_uri: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
    allow_data_mismatch: bool = False,
    executor: str = "local",
) -> int:
    """Runs what is to do, showing it as it goes; logs to MLflow beside it."""
    if executor not in EXECUTORS:
        known = did_you_mean(executor, EXECUTORS)
        raise UsageError(f"--executor {shortened(executor)}: no such executor{known}")
    warnings = [*grid.notices, *prepare_run(grid, allow_data_mismatch=allow_data_mismatch)]
    refuse_changed_inputs(grid.states)
    work = [state for state in grid.states if state.status in ("to do", "failed")]
    devices = resolve_devices(device, workers=workers, num_cells=sum(map(devices_needed, work)))
    check_gpus_per_cell(work, len(devices), f"--device {device}")
    screen = console(quiet=as_json)
    if workers is not None and devices[:1] != ("cpu",) and work:
        screen.print("warning: --workers is for the CPU; every GPU has one worker")
    _print_summary(screen, grid, devices)
    print_warnings(screen, warnings)
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    tracker = _start_tracker(grid, uri, bool(work))
    plan = RunPlan(
        settings=RunSettings(
            runs_dir=grid.runs_dir,
            data_root=grid.data_root,
            threads=worker_threads(devices, workers),
            estimates=expected_seconds(work, devices, grid.runs_dir, grid.num_rows),
            data_contents=grid.data_contents,
        ),
        devices=devices,
    )
    listeners = [Notices(screen, grid.states)] + ([tracker] if tracker else [])
    chosen = [state for state in grid.states if state.status in ("to do", "failed", "running")]
    with progress(screen, chosen if work else [], grid.num_rows) as show:
        outcome = run_grid(grid.states, plan, [show, *listeners], executor)
    after = grid.read_states() if chosen else grid.states
    problem = tracker.close() if tracker else None
    if tracker and tracker.told:
        print_warnings(screen, [tracker.told])
    _print_outcome(screen, after, outcome, uri, problem)
    standing = grid_warnings(after)
    print_warnings(screen, standing)
    if as_json:
        print_json(
            {
                "outcome": dataclasses.asdict(outcome),
                "warnings": warnings + standing,
                "cells": cell_records(after),
            }
        )
    if outcome.interrupted:
        raise KeyboardInterrupt
    return 0 if all(state.status == "done" for state in after) else 1


def _start_tracker(grid: OpenGrid, uri: str, has_work: bool) -> Tracker | None:
    """Starts logging; None where there is nothing to log.

    That is where nothing runs and the runs folder's own database holds all that is done. Importing
    MLflow takes longer than all the rest of such a run.
    """
    if not has_work and is_own(uri, grid.runs_dir):
        contents = {content_hash(state.folder) for state in grid.states if state.result}
        if not is_behind(grid.runs_dir / DATABASE_FILE, contents):
            return None
    from harness.tracking.live import Tracker

    return Tracker(grid.spec, uri, grid.runs_dir, grid.states)


def _print_summary(screen: Console, grid: OpenGrid, devices: Sequence[str]) -> None:
    """Prints what a run will do before it begins."""
    states = grid.states
    counts = Counter(state.status for state in states)
    to_do = counts["to do"] + counts["failed"]
    running = f", {counts['running']} running elsewhere" if counts["running"] else ""
    again = f" ({counts['failed']} of them failed before)" if counts["failed"] else ""
    print_line(screen, grid.spec.title, "bold")
    screen.print(
        f"{len(states)} cells: {counts['done']} done, {to_do} to do{again}{running}"
        + (f"; {len(devices)} × {devices[0].split(':')[0]}" if to_do and devices else ""),
        highlight=False,
    )
    if not to_do:
        return
    table = new_table(
        ["model", "method"], ["trainable", "cells", "steps per cell", "learning rate"]
    )
    groups: dict[tuple[str, str], list[PlanRow]] = {}
    planned = plan_rows(states, grid.num_rows)
    for state, row in zip(states, planned, strict=True):
        groups.setdefault((state.cell.model_name, state.cell.method_label), []).append(row)
    for (model, method), members in groups.items():
        table.add_row(
            cell_text(model),
            cell_text(method),
            f"{members[0].trainable_parameters:,}",
            str(len(members)),
            _range([row.steps for row in members]),
            _range([row.learning_rate for row in members]),
        )
    screen.print(table)
    print_plan_warnings(screen, planned)


def _range(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    if not known:
        return "–"
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"


def _print_outcome(
    screen: Console,
    states: Sequence[CellState],
    outcome: GridOutcome,
    uri: str,
    problem: str | None,
) -> None:
    """Prints what came of a run."""
    if outcome.done or outcome.failed:
        print_cells(screen, states)
    print_tracking_problem(screen, problem)
    done = sum(state.status == "done" for state in states)
    text = f"{done} of {len(states)} cells done"
    if outcome.failed:
        text += f", {len(outcome.failed)} failed (the same command tries them again)"
    elif done == len(states):
        text += "; now `zbench report` with the same grid"
    print_line(screen, f"{text}. MLflow: {mask_secrets(uri)}")
    for state in states:
        if state.status == "running":
            print_line(screen, f"not done here: {state.cell.label}: {holder(state.folder)} runs it")
