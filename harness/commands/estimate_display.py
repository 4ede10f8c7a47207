"""What `zbench plan --hardware` and `--probe` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.commands.progress import format_seconds
from harness.estimate.costs import CellEstimate
from harness.estimate.forecast import CellForecast, Probe, busy_seconds, wall_seconds
from harness.estimate.gpus import Gpu
from harness.estimate.hardware import HardwareEstimate

if TYPE_CHECKING:
    from rich.console import Console

MISSING = "–"
SOURCES = {"counted": "", "known": "≈ ", "estimated": "~ "}


def print_hardware(console: Console, grid_name: str, found: HardwareEstimate) -> None:
    """Prints a grid's estimate on a GPU."""
    from rich.table import Table
    from rich.text import Text

    gpu = found.gpu
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cell", no_wrap=True)
    columns = [
        "tokens",
        "scored",
        "PFLOP",
        "training",
        "scoring",
        "GPU h",
        "cost",
        "peak GB",
        "fits",
    ]
    if found.price_per_hour is None:
        columns.remove("cost")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for cell in found.cells:
        values = {
            "tokens": _tokens(cell.training_tokens, cell.tokens_source),
            "scored": _tokens(cell.scoring_tokens, cell.tokens_source),
            "PFLOP": MISSING if cell.flops is None else f"{cell.flops / 1e15:,.0f}",
            "training": _time(cell.training_seconds),
            "scoring": _time(cell.scoring_seconds),
            "GPU h": _number(cell.gpu_hours),
            "cost": _number(found.money(cell.gpu_hours)),
            "peak GB": MISSING if cell.peak_bytes is None else f"{cell.peak_bytes / 1e9:,.0f}",
            "fits": _fits(cell, gpu),
        }
        table.add_row(Text(cell.label), *(values[column] for column in columns))
    console.print(table)
    _line(console, _total(grid_name, found))
    if found.done_cells or found.done_seconds:
        _line(
            console,
            f"done already, not counted: {found.done_cells} cells, "
            f"{format_seconds(found.done_seconds)} measured",
        )
    _line(
        console,
        f"{gpu.title}, {gpu.memory_gb:g} GB: {_peaks(found)} by its data sheet, of which "
        f"{gpu.sustained_share:.0%} is assumed to be sustained. Tokens: ≈ from known sizes, "
        "~ estimated.",
    )
    for cell in found.cells:
        if cell.note:
            _line(console, f"warning: {cell.label}: {cell.note}")
    print_needs(console, found)


def _fits(cell: CellEstimate, gpu: Gpu) -> str:
    if cell.fits is None or cell.peak_bytes is None:
        return MISSING
    if not cell.fits:
        return "NO"
    return "yes" if cell.peak_bytes <= gpu.memory_bytes else "yes*"  # a warning says how


def _peaks(found: HardwareEstimate) -> str:
    used = sorted({cell.precision for cell in found.cells})
    peaks = [(found.gpu.peak_flops(precision), precision) for precision in used]
    return " and ".join(f"{p / 1e12:,.0f} TFLOP/s dense {name}" for p, name in peaks if p)


def _total(grid_name: str, found: HardwareEstimate) -> str:
    hours, flops = found.gpu_hours, [cell.flops for cell in found.cells]
    known = [one for one in flops if one is not None]
    text = f"{grid_name}: {len(found.cells)} cells to do, {sum(known) / 1e18:,.2f} EFLOP, "
    if hours is None:
        some = sum(cell.gpu_hours or 0.0 for cell in found.cells)
        text += f"more than {some:,.1f} GPU hours (not all can be estimated)"
    else:
        text += f"{hours:,.1f} GPU hours"
    money = found.money(hours)
    if money is not None:
        text += f", {money:,.2f} at {found.price_per_hour:g} per hour"
    elif found.price_per_hour is None:
        text += " (their price: --price-per-hour X)"
    return text


def print_needs(console: Console, found: HardwareEstimate) -> None:
    """Prints what is not on this machine, and the disk that the grid needs."""
    lacking = [need for need in found.needs if not need.here]
    if lacking:
        _line(console, "not on this machine (asked of no network):")
    for need in lacking:
        size = f", {need.bytes / 1e9:,.0f} GB" if need.bytes else ""
        access = f"; {need.access}" if need.access else ""
        _line(console, f"  {need.kind} {need.name}{size}{access}")
    disk = found.disk
    short = "" if disk.suffices else ": NOT ENOUGH"
    _line(
        console,
        f"disk: {_gb(disk.results)} results, {_gb(disk.checkpoints)} checkpoints while training, "
        f"{_gb(disk.downloads)} downloads; {_gb(disk.free)} free{short}",
    )


def print_forecast(
    console: Console,
    grid_name: str,
    probe: Probe,
    forecasts: Sequence[CellForecast],
    num_cells: int,
    price_per_hour: float | None,
) -> None:
    """Prints what a probe of this machine makes of a grid."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cell", no_wrap=True)
    for column in ("training", "scoring", "other", "in all"):
        table.add_column(column, justify="right", no_wrap=True)
    for cell in forecasts:
        table.add_row(
            Text(cell.label),
            *(
                f"{seconds:,.1f} s"
                for seconds in (
                    cell.training_seconds,
                    cell.scoring_seconds,
                    cell.other_seconds,
                    cell.seconds,
                )
            ),
        )
    console.print(table)
    wall = wall_seconds(forecasts, probe)
    busy = busy_seconds(forecasts, probe)
    money = ""
    if price_per_hour is not None:
        money = f", {busy / 3600 * price_per_hour:,.2f} at {price_per_hour:g} per hour"
    _line(
        console,
        f"{grid_name}: {num_cells} cells to do, {format_seconds(wall)} here with {probe.workers} "
        f"workers, {busy / 3600:,.2f} worker hours{money}",
    )
    if num_cells > len(forecasts):
        _line(console, f"warning: {num_cells - len(forecasts)} cells could not be estimated")
    _line(console, f"measured on {probe.device}, {probe.threads} threads per worker")
    if probe.cpu_share < 0.8:
        _line(
            console,
            f"warning: other work on the machine left the probe {probe.cpu_share:.0%} of its time; "
            f"if that goes on, the run takes {format_seconds(wall / probe.cpu_share)}",
        )


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _tokens(count: int | None, source: str) -> str:
    if count is None:
        return MISSING
    text = f"{count / 1e6:,.2f} M" if count >= 1e5 else f"{count:,}"
    return SOURCES[source] + text if count else text


def _time(seconds: float | None) -> str:
    return MISSING if seconds is None else format_seconds(seconds)


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.2f}"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
