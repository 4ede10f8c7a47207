"""What each command does, once its arguments are parsed; returns the exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import display, progress_display
from harness.cell import RunSettings, run_cell
from harness.errors import ReportError, UsageError
from harness.events import Event
from harness.executors import RunPlan, run_grid
from harness.executors.devices import resolve_devices, worker_threads
from harness.frames import cells_frame, losses_frame, scores_frame
from harness.grid import Cell, GridSpec, expand
from harness.grid_file import load_grid
from harness.interrupts import heeding_signals
from harness.memory import SmallerBudget
from harness.plan import check_fractions, check_sources, count_rows, plan_rows, resolve_data_root
from harness.result_source import ResultSource
from harness.state import (
    CellBusy,
    CellState,
    check_writable,
    find_cell,
    read_states,
    select_cells,
)

if TYPE_CHECKING:
    from harness.export import Exported


@dataclass(frozen=True)
class OpenGrid:
    """A grid with the places that the command line gave."""

    argument: str
    """What the user called it."""
    spec: GridSpec
    cells: list[Cell]
    """The chosen ones."""
    runs_dir: Path
    data_root: Path | None

    def states(self) -> list[CellState]:
        """Returns how far each cell is, now."""
        return read_states(self.cells, runs_dir=self.runs_dir, data_root=self.data_root)

    def num_rows(self) -> int | None:
        """Returns the size of the training data, where it is known."""
        return count_rows(self.spec.data, self.data_root)


def open_grid(grid: str, runs_dir: Path, data_root: Path | None, only: str | None) -> OpenGrid:
    """Returns the grid, validated, with its chosen cells.

    Raises:
        UsageError: the grid has faults, or nothing is chosen, or a folder is not there.
    """
    spec = load_grid(grid)
    return OpenGrid(
        argument=grid,
        spec=spec,
        cells=select_cells(expand(spec), only),
        runs_dir=runs_dir,
        data_root=resolve_data_root(spec, data_root, runs_dir),
    )


def run_grid_command(
    grid: OpenGrid,
    *,
    tracking_uri: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
) -> int:
    """Runs what is to do, showing it as it goes; logs to MLflow beside it."""
    from harness.tracking import Tracker, resolve_uri

    prepare_run(grid)
    states = grid.states()
    refuse_changed_inputs(states)
    work = [state for state in states if state.status in ("to do", "failed")]
    devices = resolve_devices(device, workers=workers, num_cells=len(work))
    console = display.console(quiet=as_json)
    if workers is not None and devices[:1] != ("cpu",) and work:
        console.print("warning: --workers is for the CPU; every card has one worker")
    display.print_summary(console, grid.spec, states, grid.num_rows(), devices)
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    tracker = Tracker(grid.spec, uri, grid.runs_dir, states)
    tracker.start()
    plan = RunPlan(
        settings=RunSettings(
            runs_dir=grid.runs_dir,
            data_root=grid.data_root,
            threads=worker_threads(devices, workers),
        ),
        devices=devices,
    )
    with progress_display.progress(console, work, grid.num_rows()) as show:
        outcome = run_grid(states, plan, [show, tracker])
    after = grid.states()
    problem = tracker.close()
    display.print_outcome(console, after, outcome, uri, problem)
    if as_json:
        _print_json({"outcome": dataclasses.asdict(outcome), "cells": _status_records(after)})
    if outcome.interrupted:
        raise KeyboardInterrupt
    return 1 if outcome.failed else 0


def prepare_run(grid: OpenGrid) -> None:
    """Checks what can be checked before anything runs, and writes the embedded world.

    Raises:
        UsageError: a folder cannot be written, or a local file that cells read is not there.
    """
    check_writable(grid.runs_dir)
    if grid.spec.world == "demo" and grid.data_root is not None:
        from harness.demo.world import write_world
        from harness.plan import world_folder

        if grid.data_root == world_folder(grid.runs_dir):
            write_world(grid.data_root)
    check_sources(grid.cells, grid.data_root)
    check_fractions(grid.cells, grid.num_rows())


def refuse_changed_inputs(states: list[CellState]) -> None:
    """Stops before numbers of different data or weights meet in one grid.

    Raises:
        UsageError: what the results were made from has changed since; the first of them is told.
    """
    stale = [state.fault for state in states if state.status == "stale"]
    if stale:
        more = f" ({len(stale) - 1} more cells likewise)" if len(stale) > 1 else ""
        raise UsageError(f"{stale[0]}{more}")


def run_cell_command(
    grid: OpenGrid, name: str, *, tracking_uri: str | None, device: str, as_json: bool
) -> int:
    """Runs one cell in this process."""
    from harness.tracking import Tracker, resolve_uri

    cell = find_cell(grid.cells, name)
    one = dataclasses.replace(grid, cells=[cell])
    prepare_run(one)
    states = one.states()
    refuse_changed_inputs(states)
    devices = resolve_devices(device, workers=1, num_cells=1)
    tracker = Tracker(
        grid.spec, resolve_uri(grid.spec, grid.runs_dir, tracking_uri), grid.runs_dir, states
    )
    tracker.start()
    console = display.console(quiet=as_json)
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
            tracker(event)

        try:
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
    if grid.data_root is not None and grid.data_root.is_dir():
        check_sources(grid.cells, grid.data_root)
    check_fractions(grid.cells, grid.num_rows())
    if as_json:
        _print_json({"grid": grid.spec.name, "cells": [dataclasses.asdict(row) for row in rows]})
    else:
        display.print_plan(display.console(), grid.spec, rows)
    return 0


def status_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Shows how far the cells are."""
    states = grid.states()
    if as_json:
        _print_json({"grid": grid.spec.name, "cells": _status_records(states)})
    else:
        display.print_status(display.console(), states)
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
            notes=grid.spec.notes,
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
