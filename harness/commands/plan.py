"""`zbench plan`: what a grid's cells are, and what they cost on a GPU or on this machine."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.analysis.peft_suite import published_cost
from harness.commands import display
from harness.commands.display import (
    new_table,
    print_json,
    print_line,
    print_plan_warnings,
    print_table,
    print_warnings,
)
from harness.commands.plan_power import grid_powers, power_lines, power_record, short_line
from harness.commands.tuning import stand_in_line, tuning_lines, tuning_records
from harness.errors import UsageError
from harness.estimate.compute import disk_needs
from harness.estimate.costs import CellEstimate, GridEstimate, assumptions, estimate_grid
from harness.estimate.gpus import device_name
from harness.estimate.lengths import known_losses
from harness.estimate.needs import find_needs
from harness.estimate.plan import PlanRow, plan_rows
from harness.estimate.probe import (
    GridForecast,
    Probe,
    forecast_grid,
    representatives,
    run_probe,
    write_probe,
)
from harness.estimate.probe_worker import ProbeSettings
from harness.execution.devices import resolve_devices, worker_threads
from harness.execution.gpu_check import check_gpus
from harness.grid.budgets import budget_notes
from harness.grid.noise import noise_lines
from harness.grid.remarks import remark_lines
from harness.grid.workspace import OpenGrid, prepare_run, refuse_changed_inputs
from harness.records.cell_progress import format_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "–"
ENDED = ("done", "pruned", "diverged")
"""The statuses of cells of which nothing is left to do."""
SOURCES = {"counted": "", "known": "≈ ", "estimated": "~ "}


def plan_command(grid: OpenGrid, *, as_json: bool) -> int:
    """Lists the cells of a grid."""
    refuse_changed_inputs(grid.states)
    rows = plan_rows(grid.expected, grid.num_rows, known_losses(grid.runs_dir, grid.data_root))
    settled = grid.settled
    rows = [
        dataclasses.replace(row, status="diverged") if row.cell_id in settled else row
        for row in rows
    ]
    for place, (_, waits) in enumerate(grid.waiting, len(grid.states)):
        rows[place] = dataclasses.replace(rows[place], cell_id=None, status=waits)
    warnings = [*grid.notices, *grid.inputs.warnings]
    said = remark_lines(grid.spec.remarks, grid.spec.left_out)
    notes = [*budget_notes(grid.spec), *said, *tuning_lines(grid), *stand_in_line(grid)]
    notes += noise_lines(grid.cells)
    powers = grid_powers(grid)
    warnings += short_line(grid.spec.name, powers)
    if as_json:
        cells = [dataclasses.asdict(row) for row in rows]
        data = {name: dataclasses.asdict(one) for name, one in grid.data_reports.items()}
        told: dict[str, object] = {"data": data} if data else {}
        told |= {"notes": notes} if notes else {}
        told |= {"tunings": tuning_records(grid)} if grid.tunings else {}
        told |= {"claims": [power_record(one) for one in powers]} if powers else {}
        print_json({"grid": grid.spec.name, "warnings": warnings, **told, "cells": cells})
    else:
        _print_plan(display.console(), grid.spec.name, rows)
        for line in [*grid.data_lines, *(f"note: {note}" for note in notes)]:
            print_line(display.console(), line)
        for line in power_lines(powers):
            print_line(display.console(), line)
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
    allow_data_mismatch: bool,
    as_json: bool,
) -> int:
    """Prints what is left to do of a grid in hours, money, memory and disk."""
    if hardware is not None and probe:
        raise UsageError("--hardware and --probe: give one of them; a probe measures this machine")
    if probe:
        prepare_run(grid, allow_data_mismatch=allow_data_mismatch)
        return _probe_command(grid, price_per_hour, device, workers, as_json)
    if price_per_hour is not None and not math.isfinite(price_per_hour):
        raise UsageError(f"--price-per-hour: must be a number (got {price_per_hour})")
    if hardware is None:
        raise UsageError("--price-per-hour: needs --hardware or --probe")
    found = estimate_grid(
        grid.left,
        hardware,
        price_per_hour=price_per_hour,
        runs_dir=grid.runs_dir,
        data_root=grid.data_root,
        num_rows=grid.num_rows,
    )
    if as_json:
        claims = [power_record(one) for one in grid_powers(grid)]
        told = {"claims": claims} if claims else {}
        print_json({"grid": grid.spec.name, **found.record(), **told})
    else:
        _print_estimate(display.console(), grid.spec.name, found)
        for line in [*stand_in_line(grid), *published_cost(grid.spec.published_runs)]:
            print_line(display.console(), f"note: {line}")
        _print_powers(grid)
    return 0


def _print_powers(grid: OpenGrid) -> None:
    """What the planned seeds and items can show, beside what they cost."""
    powers = grid_powers(grid)
    for line in power_lines(powers):
        print_line(display.console(), line)
    print_warnings(display.console(), short_line(grid.spec.name, powers))


def _probe_command(
    grid: OpenGrid, price_per_hour: float | None, device: str, workers: int | None, as_json: bool
) -> int:
    """Measures this machine, keeps the times, and prints what they make of the grid."""
    states = [state for state in grid.left if state.status != "done"]
    cells = [state.cell for state in states]
    devices = resolve_devices(device, workers=workers, num_cells=len(cells))
    check_gpus(devices, states)
    threads = worker_threads(devices, workers)
    console = display.console(quiet=as_json)
    measured, total = itertools.count(1), len(representatives(cells))
    settings = ProbeSettings(data_root=grid.data_root, threads=threads)
    pairs = run_probe(
        cells,
        settings,
        devices,
        lambda key: print_line(console, f"[{next(measured)}/{total}] {key}"),
    )
    device_title = device_name(devices[0]) or devices[0]
    found = Probe(device=device_title, workers=len(devices), threads=threads, pairs=pairs)
    if pairs:
        write_probe(grid.runs_dir, found)
    forecast = forecast_grid(states, found, grid.num_rows)
    if as_json:
        needs = find_needs(states, grid.data_root)
        disk = disk_needs(states, needs, grid.runs_dir, len(devices))
        record = forecast.record(price_per_hour) | {
            "needs": [dataclasses.asdict(need) for need in needs],
            "disk": dataclasses.asdict(disk),
        }
        print_json({"grid": grid.spec.name, **record})
    else:
        _print_forecast(console, grid.spec.name, forecast, price_per_hour)
        for line in stand_in_line(grid):
            print_line(console, f"note: {line}")
        _print_powers(grid)
    return 0


def _print(
    console: Console, table: Table, rows: Iterable[Iterable[str]], lines: Iterable[str]
) -> None:
    """Prints a table with its rows, and lines below it."""
    print_table(console, table, [list(row) for row in rows])
    for line in lines:
        print_line(console, line)


def _form(form: str, value: object) -> str:
    return MISSING if value is None else form.format(value)


def _print_plan(console: Console, grid_name: str, rows: Sequence[PlanRow]) -> None:
    shown = [one for one in dataclasses.fields(PlanRow) if "head" in one.metadata]
    heads = [one.metadata["head"] for one in shown]
    texts = [[_form(one.metadata["form"], getattr(row, one.name)) for one in shown] for row in rows]
    to_do = sum(row.status not in ENDED for row in rows)
    untrained = [row.steps for row in rows if not row.trained and row.status not in ENDED]
    known = [steps for steps in untrained if steps is not None]
    steps = f"{sum(known):,} optimizer steps"
    if len(known) < len(untrained):
        steps = "steps unknown until the data is read (state its size: data.num_rows)"
    numbers = heads.index("examples")
    table = new_table(heads[:numbers], heads[numbers:], no_wrap=True)
    _print(console, table, texts, [f"{grid_name}: {len(rows)} cells, {to_do} to do, {steps}"])
    print_plan_warnings(console, rows)


ESTIMATE_COLUMNS: dict[str, Callable[[CellEstimate, GridEstimate], str]] = {
    "cell": lambda cell, grid: cell.label,
    "tokens": lambda cell, grid: _tokens(cell.training_tokens, cell.tokens_source),
    "scored": lambda cell, grid: _tokens(cell.scoring_tokens, cell.tokens_source),
    "PFLOP": lambda cell, grid: _form("{:,.0f}", cell.flops and cell.flops / 1e15),
    "training": lambda cell, grid: _time(cell.training_seconds),
    "scoring": lambda cell, grid: _time(cell.scoring_seconds),
    "GPU h": lambda cell, grid: _form("{:,.2f}", cell.gpu_hours),
    "cost": lambda cell, grid: _form("{:,.2f}", grid.money(cell.gpu_hours)),
    "peak GB": lambda cell, grid: _form("{:,.0f}", cell.peak_bytes and cell.peak_bytes / 1e9),
    "fits": lambda cell, grid: _fits(cell, grid),
}
"""`cost` only where there is a price."""


def _print_estimate(console: Console, grid_name: str, found: GridEstimate) -> None:
    columns = dict(ESTIMATE_COLUMNS)
    if found.price_per_hour is None:
        del columns["cost"]
    rows = [[text_of(cell, found) for text_of in columns.values()] for cell in found.cells]
    table = new_table(["cell"], [head for head in columns if head != "cell"], no_wrap=True)
    _print(console, table, rows, _estimate_lines(grid_name, found))


def _estimate_lines(grid_name: str, found: GridEstimate) -> Iterator[str]:
    gpu = found.gpu
    yield _total(grid_name, found)
    if found.done_cells or found.done_seconds:
        done = f"{found.done_cells} cells, {format_seconds(found.done_seconds)} measured"
        yield f"done already, not counted: {done}"
    yield (
        f"{gpu.title}, {gpu.memory_gb:g} GB: {_peaks(found)} by its data sheet, of which "
        f"{gpu.sustained_share:.0%} is assumed to be sustained by matrix products. Tokens: ≈ from "
        "known sizes, ~ estimated."
    )
    yield assumptions(gpu)
    for cell in found.cells:
        if cell.note:
            yield f"warning: {cell.label}: {cell.note}"
    lacking = [need for need in found.needs if not need.here]
    if lacking:
        yield "not on this machine (asked of no network):"
    for need in lacking:
        size = f", {need.bytes / 1e9:,.0f} GB" if need.bytes else ""
        access = f"; {need.access}" if need.access else ""
        yield f"  {need.kind} {need.name}{size}{access}"
    if found.cells:
        largest = max(found.cells, key=lambda cell: cell.host_bytes)
        yield (
            f"memory of the machine: {_gb(largest.host_bytes)} for {largest.label}, more than for "
            "any other"
            if len(found.cells) > 1
            else f"memory of the machine: {_gb(largest.host_bytes)}"
        )
    disk, short = found.disk, "" if found.disk.suffices else ": NOT ENOUGH"
    yield (
        f"disk: {_gb(disk.results)} results, {_gb(disk.checkpoints)} checkpoints while training, "
        f"{_gb(disk.downloads)} downloads; {_gb(disk.free)} free{short}"
    )


def _total(grid_name: str, found: GridEstimate) -> str:
    flops = sum(cell.flops or 0.0 for cell in found.cells)
    text = f"{grid_name}: {len(found.cells)} cells to do, {flops / 1e18:,.2f} EFLOP, "
    if found.gpu_hours is None:
        some = sum(cell.gpu_hours or 0.0 for cell in found.cells)
        text += f"more than {some:,.1f} GPU hours (not all can be estimated)"
    else:
        text += f"{found.gpu_hours:,.1f} GPU hours"
    if found.price_per_hour is None:
        return f"{text} (their price: --price-per-hour X)"
    money = found.money(found.gpu_hours)
    return text if money is None else f"{text}, {_money(money, found.price_per_hour)}"


def _peaks(found: GridEstimate) -> str:
    used = sorted({cell.precision for cell in found.cells})
    peaks = [(found.gpu.peak_flops(precision), precision) for precision in used]
    return " and ".join(
        f"{p / 1e12:,.0f} TFLOP/s dense {name}" if p else f"no {name}" for p, name in peaks
    )


def _print_forecast(
    console: Console, grid_name: str, found: GridForecast, price_per_hour: float | None
) -> None:
    parts = ("training_seconds", "scoring_seconds", "other_seconds", "seconds")
    rows = [[one.label, *(f"{getattr(one, part):,.1f} s" for part in parts)] for one in found.cells]
    table = new_table(["cell"], ["training", "scoring", "other", "in all"], no_wrap=True)
    _print(console, table, rows, _forecast_lines(grid_name, found, price_per_hour))


def _forecast_lines(
    grid_name: str, found: GridForecast, price_per_hour: float | None
) -> Iterator[str]:
    probe, hours = found.probe, found.worker_seconds / 3600
    money = "" if price_per_hour is None else f", {_money(hours * price_per_hour, price_per_hour)}"
    yield (
        f"{grid_name}: {found.num_cells} cells to do, {format_seconds(found.wall_seconds)} here "
        f"with {probe.workers} workers, {hours:,.2f} worker hours{money}"
    )
    if found.num_cells > len(found.cells):
        yield f"warning: {found.num_cells - len(found.cells)} cells could not be estimated"
    yield f"measured on {probe.device}, {probe.threads} threads per worker"
    if probe.cpu_share < 0.8:
        longer = format_seconds(found.wall_seconds / probe.cpu_share)
        yield (
            f"warning: other work on the machine left the probe {probe.cpu_share:.0%} of its time; "
            f"if that continues, the run takes {longer}"
        )


def _fits(cell: CellEstimate, grid: GridEstimate) -> str:
    if cell.fits is None or cell.peak_bytes is None:
        return MISSING
    if not cell.fits:
        return "NO"
    return "yes" if cell.peak_bytes <= grid.gpu.memory_bytes else "yes*"  # a warning says how


def _tokens(count: int | None, source: str) -> str:
    if not count:
        return _form("{}", count)
    return SOURCES[source] + (f"{count / 1e6:,.2f} M" if count >= 1e5 else f"{count:,}")


def _time(seconds: float | None) -> str:
    return MISSING if seconds is None else format_seconds(seconds)


def _money(amount: float, price_per_hour: float) -> str:
    return f"{amount:,.2f} at {price_per_hour:g} per hour"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
