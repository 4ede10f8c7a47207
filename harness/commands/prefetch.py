"""`zbench prefetch`: all that a grid reads into one folder, told before and checked after."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.display import (
    cell_text,
    console,
    new_table,
    print_json,
    print_line,
    print_warnings,
)
from harness.commands.progress import format_seconds
from harness.demo.world import DATA
from harness.errors import StorageError, UsageError
from harness.evaluation.task_data import is_offline
from harness.grid.checks import DATA_ROOT_VARIABLE
from harness.grid.inputs import Inputs, inputs_of_cells
from harness.grid.workspace import open_grid
from harness.prepare.prefetch import (
    PrefetchPlan,
    Told,
    alone_in,
    check_loads,
    fetch_all,
    manifest_of,
    plan_prefetch,
)
from harness.prepare.wants import find_wants

if TYPE_CHECKING:
    from rich.console import Console

SPEEDS = {"100 Mbit/s": 12.5e6, "1 Gbit/s": 125e6}
"""Bytes in a second of two usual lines: how fast the hub answers is seen when it does."""
TOLD_SECONDS = 30.0
UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}


def prefetch_command(
    grid: str, to: Path, *, data_root: Path | None, update: bool, as_json: bool
) -> int:
    """Fetches what a grid reads; says before what that is, and checks after that it loads."""
    if is_offline():
        raise UsageError("HF_HUB_OFFLINE: is set, and prefetch needs the network; unset it")
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {to}: is no folder; name a folder, new or begun before")
    to = to.resolve()
    inputs, root = _inputs_of(grid, to, data_root)
    wants = find_wants(inputs, root)
    plan = plan_prefetch(wants, to, update=update)
    screen = console(quiet=as_json)
    _print_plan(screen, plan, to)
    faults, warnings = [*plan.faults], list[str]()
    if plan.disk_bytes > plan.free:
        raise StorageError(
            f"{to}: {_size(plan.disk_bytes)} are needed and {_size(plan.free)} are free; free "
            "space, or name a folder on another disk"
        )
    shown = _Shown(screen, plan.bytes)
    with alone_in(to), shown:
        faults += fetch_all(plan, to, Told(shown.came, shown.whole), grid)
    whole = manifest_of(to)["repositories"]
    failed = [
        one.name for one in wants.repositories if not whole.get(one.title, {}).get("complete")
    ]
    print_line(screen, "checked as a run reads it, without network:")
    for kind, line in check_loads(inputs, to, without=failed):
        (faults if kind == "fault" else warnings).append(line)
    print_warnings(screen, warnings)
    for line in faults:
        print_line(screen, f"not to be had: {line}", "bold")
    if as_json:
        print_json(_record(grid, to, plan, faults, warnings))
    if faults:
        print_line(screen, f"{len(faults)} not to be had; the same command again goes on from here")
        return 1
    print_line(screen, f"whole: `zbench run-grid {grid} --data-root {to}` needs no network")
    return 0


def _inputs_of(grid: str, to: Path, data_root: Path | None) -> tuple[Inputs, Path | None]:
    """What a grid's cells read, and where its own files lie: a data root that is not `to`."""
    named = os.environ.get(DATA_ROOT_VARIABLE)
    if data_root is None and named and Path(named).resolve() != to.resolve():
        data_root = Path(named)
    if data_root is not None and data_root.resolve() == to.resolve():
        data_root = None
    before = os.environ.pop(DATA_ROOT_VARIABLE, None)
    try:
        opened = open_grid(grid, to / ".no-runs", data_root, None)
    finally:
        os.environ |= {DATA_ROOT_VARIABLE: before} if before is not None else {}
    world = DATA if opened.spec.world is not None else None
    cells = [*opened.cells, *(cell for cell, _ in opened.waiting)]
    return inputs_of_cells(cells), data_root or world or (to if to.is_dir() else None)


def _print_plan(screen: Console, plan: PrefetchPlan, to: Path) -> None:
    table = new_table(
        ["what", "from", "commit", "licence", "access"], ["files", "size", "to fetch"]
    )
    for found in plan.listings:
        repository = found.repository
        table.add_row(
            *map(cell_text, (repository.used_as, f"{repository.name}@{repository.revision}")),
            cell_text(found.commit[:12]),
            cell_text(found.licence or "not stated"),
            cell_text(found.gate or "open"),
            str(len(found.files)),
            _size(found.size),
            _size(plan.missing[repository.title]),
        )
    for copy in plan.copies:
        bytes_of = _size(copy.path.stat().st_size)
        own = map(cell_text, ("file", str(copy.path), "", "your own", ""))
        table.add_row(*own, "1", bytes_of, _size(plan.missing[copy.name]))
    if table.row_count:
        screen.print(table)
    elif not plan.faults:
        print_line(screen, "the grid reads nothing but what ships with zbench")
    size = plan.bytes
    free = f"{_size(plan.free)} are free there"
    print_line(screen, f"to fetch into {to}: size {_size(size)}; {free}")
    if size:
        times = [f"{format_seconds(size / speed)} at {name}" for name, speed in SPEEDS.items()]
        print_line(screen, f"which takes {', '.join(times)}")


def _size(size: float | None) -> str:
    if size is None:
        return "unknown"
    unit = next((unit for unit in UNITS if size >= UNITS[unit]), "kB")
    return f"{size / UNITS[unit]:,.1f} {unit}"


class _Shown:
    """Shows how far the download is: what is whole, and now and then how fast the rest comes."""

    def __init__(self, screen: Console, total: int | None) -> None:
        self._screen, self._total = screen, total
        self._lock = threading.Lock()
        self._start = self._told = time.monotonic()
        self._bytes = 0

    def __enter__(self) -> None:
        self._start = self._told = time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._start
        speed = f" ({_size(self._bytes / seconds)}/s)" if self._bytes > 1e6 else ""
        print_line(self._screen, f"fetched in {format_seconds(seconds)}{speed}")

    def came(self, size: int) -> None:
        """Counts bytes; tells them now and then."""
        with self._lock:
            self._bytes += size
            now = time.monotonic()
            if now - self._told < TOLD_SECONDS:
                return
            self._told = now
            speed = self._bytes / (now - self._start)
            left = ""
            if self._total is not None and speed:
                left = f" of {_size(self._total)}, {_size(speed)}/s, "
                left += f"{format_seconds(max(0.0, self._total - self._bytes) / speed)} left"
            print_line(self._screen, f"  {_size(self._bytes)}{left}")

    def whole(self, name: str, size: int) -> None:
        """Tells what is whole, its hashes checked."""
        with self._lock:
            print_line(self._screen, f"  whole: {name}, {_size(size)}")


def _record(
    grid: str, to: Path, plan: PrefetchPlan, faults: list[str], warnings: list[str]
) -> dict[str, Any]:
    return {
        "grid": grid,
        "to": str(to),
        "repositories": [
            {
                "kind": found.repository.kind,
                "name": found.repository.name,
                "revision": found.repository.revision,
                "commit": found.commit,
                "licence": found.licence,
                "gate": found.gate,
                "bytes": found.size,
            }
            for found in plan.listings
        ],
        "copies": [copy.name for copy in plan.copies],
        "warnings": warnings,
        "faults": faults,
    }
