"""TODO: say what this is for."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.commands import display
from harness.commands import estimate_display as output
from harness.commands.display import print_json
from harness.commands.notices import print_warnings
from harness.errors import UsageError
from harness.estimate.expected import device_name
from harness.estimate.forecast import Probe, busy_seconds, forecast_cell, wall_seconds, write_probe
from harness.estimate.hardware import estimate_on_gpu
from harness.estimate.needs import disk_needs, find_needs
from harness.estimate.plan import plan_rows
from harness.estimate.probe import representatives, run_probe
from harness.estimate.probe_worker import ProbeSettings
from harness.execution.devices import resolve_devices, worker_threads
from harness.grid.checks import check_data_versions, check_fractions, check_sources
from harness.grid.workspace import OpenGrid, prepare_run


def plan_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Lists the cells of a grid."""
    rows = plan_rows(grid.states, grid.num_rows)
    warnings = []
    if grid.data_root is not None and grid.data_root.is_dir():
        check_sources(grid.cells, grid.data_root)
        warnings = check_data_versions(grid.cells, grid.data_root, allow=True)
    check_fractions(grid.cells, grid.num_rows)
    if as_json:
        cells = [dataclasses.asdict(row) for row in rows]
        print_json({"grid": grid.spec.name, "warnings": warnings, "cells": cells})
    else:
        display.print_plan(display.console(), grid.spec, rows)
        print_warnings(display.console(), warnings)
    return 0


def estimate_command(
    grid: OpenGrid,
    *,
    hardware: str | None,
    probe: bool,
    price_per_hour: float | None,
    device: str,
    workers: int | None,
    as_json: bool,
) -> int:
    """Prints what is left to do of a grid in hours, money, memory and disk."""
    if hardware is not None and probe:
        raise UsageError("--hardware and --probe: give one of them; a probe measures this machine")
    if hardware is None and not probe:
        raise UsageError("--price-per-hour: needs --hardware or --probe")
    if probe:
        return _probe_command(
            grid, price_per_hour=price_per_hour, device=device, workers=workers, as_json=as_json
        )
    assert hardware is not None
    if grid.data_root is not None and grid.data_root.is_dir():
        check_sources(grid.cells, grid.data_root)
    check_fractions(grid.cells, grid.num_rows)
    found = estimate_on_gpu(
        grid.states,
        hardware,
        price_per_hour=price_per_hour,
        runs_dir=grid.runs_dir,
        data_root=grid.data_root,
        num_rows=grid.num_rows,
    )
    if as_json:
        print_json({"grid": grid.spec.name, **found.record()})
    else:
        output.print_hardware(display.console(), grid.spec.name, found)
    return 0


def _probe_command(
    grid: OpenGrid,
    *,
    price_per_hour: float | None,
    device: str,
    workers: int | None,
    as_json: bool,
) -> int:
    """Measures this machine, keeps the times, and prints what they make of the grid."""
    prepare_run(grid)
    states = [state for state in grid.states if state.status != "done"]
    cells = [state.cell for state in states]
    devices = resolve_devices(device, workers=workers, num_cells=len(cells))
    threads = worker_threads(devices, workers)
    console = display.console(quiet=as_json)
    total = len(representatives(cells))

    measured = 0

    def tell(key: str) -> None:
        nonlocal measured
        measured += 1
        console.print(f"[{measured}/{total}] {key}", markup=False, highlight=False)

    settings = ProbeSettings(data_root=grid.data_root, threads=threads)
    pairs = run_probe(cells, settings, devices, tell)
    found = Probe(
        device=device_name(devices[0]) or devices[0],
        workers=len(devices),
        threads=threads,
        pairs=pairs,
    )
    if pairs:
        write_probe(grid.runs_dir, found)
    every = [forecast_cell(state, found, grid.num_rows) for state in states]
    forecasts = [one for one in every if one is not None]
    if as_json:
        needs = find_needs(states, grid.data_root)
        disk = disk_needs(states, needs, grid.runs_dir, len(devices))
        record: dict[str, Any] = {
            "grid": grid.spec.name,
            "wall_seconds": wall_seconds(forecasts, found),
            "wall_seconds_as_busy": wall_seconds(forecasts, found) / found.cpu_share,
            "worker_seconds": busy_seconds(forecasts, found),
            "price_per_hour": price_per_hour,
            "cells": [dataclasses.asdict(one) | {"seconds": one.seconds} for one in forecasts],
            "probe": dataclasses.asdict(found),
            "needs": [dataclasses.asdict(need) for need in needs],
            "disk": dataclasses.asdict(disk),
        }
        if price_per_hour is not None:
            record["cost"] = record["worker_seconds"] / 3600 * price_per_hour
        print_json(record)
    else:
        output.print_forecast(
            console, grid.spec.name, found, forecasts, len(states), price_per_hour
        )
    return 0
