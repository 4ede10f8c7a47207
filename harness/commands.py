"""What each command does, once its arguments are parsed; returns the exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import display, progress_display
from harness.cell import RunSettings, run_cell
from harness.errors import ReportError
from harness.estimate.expected import expected_seconds
from harness.events import Event
from harness.executors import RunPlan, run_grid
from harness.executors.allotment import check_gpus_per_cell, devices_needed
from harness.executors.devices import resolve_devices, worker_threads
from harness.frames import cells_frame, losses_frame, scores_frame
from harness.interrupts import heeding_signals
from harness.memory import SmallerBudget
from harness.notices import Notices, grid_warnings, print_warnings
from harness.opened import OpenGrid, prepare_run, refuse_changed_inputs
from harness.opened import open_grid as open_grid
from harness.plan import check_data_versions, check_fractions, check_sources, plan_rows
from harness.result_source import ResultSource
from harness.state import CellBusy, CellState, find_cell

if TYPE_CHECKING:
    from harness.export import Exported


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
    from harness.tracking import Tracker, resolve_uri

    warnings = prepare_run(grid, allow_data_mismatch=allow_data_mismatch)
    states = grid.states()
    refuse_changed_inputs(states)
    work = [state for state in states if state.status in ("to do", "failed")]
    devices = resolve_devices(device, workers=workers, num_cells=sum(map(devices_needed, work)))
    check_gpus_per_cell(work, len(devices), f"--device {device}")
    console = display.console(quiet=as_json)
    if workers is not None and devices[:1] != ("cpu",) and work:
        console.print("warning: --workers is for the CPU; every card has one worker")
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
        _print_json(
            {
                "outcome": dataclasses.asdict(outcome),
                "warnings": warnings + grid_warnings(after),
                "cells": _status_records(after),
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
    from harness.tracking import Tracker, resolve_uri

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
                with heeding_signals():  # SIGUSR1 is a training's, and no end before it begins
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
        _print_json({"cells": _status_records(after)})
    return 1 if failed else 0


def plan_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Lists the cells of a grid."""
    rows = plan_rows(grid.states(), grid.num_rows())
    warnings = []
    if grid.data_root is not None and grid.data_root.is_dir():
        check_sources(grid.cells, grid.data_root)
        warnings = check_data_versions(grid.cells, grid.data_root, allow=True)
    check_fractions(grid.cells, grid.num_rows())
    if as_json:
        cells = [dataclasses.asdict(row) for row in rows]
        _print_json({"grid": grid.spec.name, "warnings": warnings, "cells": cells})
    else:
        display.print_plan(display.console(), grid.spec, rows)
        print_warnings(display.console(), warnings)
    return 0


def status_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Shows how far the cells are."""
    states = grid.states()
    warnings, cells = grid_warnings(states), _status_records(states)
    if as_json:
        _print_json({"grid": grid.spec.name, "warnings": warnings, "cells": cells})
    else:
        display.print_status(display.console(), states)
        print_warnings(display.console(), warnings)
    return 0


def sync_command(grid: OpenGrid, *, tracking_uri: str | None) -> int:
    """Replays into MLflow what it lacks."""
    from harness.tracking import GridRuns, hide_password, resolve_uri

    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    runs = GridRuns(grid.spec, uri, grid.runs_dir)
    logged = runs.sync(grid.states())
    runs.close()
    display.console().print(
        f"{logged} cells logged to {hide_password(uri)}", highlight=False, soft_wrap=True
    )
    return 0


def compare_command(
    first: str, second: str, *, runs_dir: Path, tracking_uri: str | None, as_json: bool
) -> int:
    """Tells what differs between two results; that they differ is no error."""
    from harness.compare import compare, find_side
    from harness.compare_display import comparison_record, print_comparison

    sides = [
        find_side(name, runs_dir=runs_dir, tracking_uri=tracking_uri) for name in (first, second)
    ]
    comparison = compare(*sides)
    if as_json:
        _print_json(comparison_record(comparison))
    else:
        print_comparison(display.console(), comparison)
    return 0


def export_adapter_command(
    cell: str, output: Path, *, runs_dir: Path, data_root: Path | None, as_json: bool
) -> int:
    """Writes a trained cell's weights for others."""
    from harness.export import export_cell

    _print_exported(export_cell(cell, output, runs_dir=runs_dir, data_root=data_root), as_json)
    return 0


def import_adapter_command(
    file: Path, output: Path, *, model: str, method: str | None, options: list[str], as_json: bool
) -> int:
    """Turns a released checkpoint into an adapter folder."""
    from harness.export import import_released

    exported = import_released(file, output, model=model, method=method, options=options)
    _print_exported(exported, as_json)
    return 0


def _print_exported(exported: Exported, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "folder": str(exported.folder),
                "method": exported.method,
                "num_parameters": exported.num_parameters,
            }
        )
        return
    display.console().print(
        f"{exported.folder}: {exported.method}, {exported.num_parameters:,} parameters",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def report_command(
    grid: OpenGrid, *, reports_dir: Path, tracking_uri: str | None, as_json: bool
) -> int:
    """Renders a grid's report from its MLflow runs; from the cells' files where MLflow is down."""
    from harness.environment import git_commit, package_versions
    from harness.report import ReportInput, build_report
    from harness.tracking import default_uri, resolve_uri, shown_uri

    states = grid.states()
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    if not any(state.result for state in states) and uri == default_uri(grid.runs_dir):
        raise ReportError(
            f"{grid.spec.name}: no cell has a result in {grid.runs_dir}; "
            f"run `zbench run-grid {grid.argument}` first, with the same --runs-dir"
        )
    source = ResultSource(grid.spec, grid.cells, states, runs_dir=grid.runs_dir, uri=uri)
    console = display.console(quiet=as_json)
    for fault in [state.fault for state in states if state.status == "stale"][:1]:
        console.print(f"warning: {fault}", markup=False, highlight=False, soft_wrap=True)
    if source.problem:
        warning = f"warning: {source.problem}; read the cells' own files"
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    environment = source.environment() | {
        "report made with": f"zbench {package_versions()['zbench']}, {git_commit() or 'no commit'}",
        "tracking": "the cells' own files" if source.problem else shown_uri(uri, grid.runs_dir),
    }
    report = build_report(
        ReportInput(
            grid_name=grid.spec.name,
            grid_title=grid.spec.title,
            grid_yaml=grid.spec.text,
            scores=scores_frame(grid.cells, source.results),
            cells=cells_frame(states, source.results),
            losses=losses_frame(grid.cells, source.results),
            items=source.items,
            traces=source.trace,
            theory=reports_dir / "theory",
            notes=(*grid.spec.notes, *(f"Warning: {text}." for text in grid_warnings(states))),
            environment=environment,
        ),
        reports_dir / grid.spec.name,
    )
    if as_json:
        _print_json({"page": str(report.page), "files": [str(path) for path in report.files]})
    else:
        print(report.terminal)
        print(f"\nPage:    {report.page}")
        print(f"Tables and figures: {report.page.parent}")
    return 0


def _status_records(states: list[CellState]) -> list[dict[str, Any]]:
    return [
        {
            "id": state.cell.id,
            "label": state.cell.label,
            "status": state.status,
            "folder": str(state.folder),
            "missing": [task.name for task in state.missing],
            "error": state.fault,
            "scores": display.primary_scores(state),
        }
        for state in states
    ]


def _print_json(record: dict[str, Any]) -> None:
    json.dump(record, sys.stdout, indent=1)
    print()
