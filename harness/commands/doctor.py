"""`zbench doctor`: what of this machine, or of a node, stands in a grid's way."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from pathlib import Path
from typing import Any

from harness.commands.display import cell_text, console, new_table, print_json, print_line
from harness.demo.world import readable_root
from harness.errors import UsageError, printable
from harness.execution.executors import executor_of
from harness.execution.plan import Place
from harness.grid.checks import ABSENT
from harness.grid.workspace import OpenGrid, open_grid
from harness.prepare.doctor.as_job import run_as_job
from harness.prepare.doctor.checks import is_hanging, run_checks
from harness.prepare.doctor.finding import Context, Finding
from harness.records.environment import placed_by

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "unknown": "cyan"}


def doctor_command(
    grid: str | None,
    place: Place,
    *,
    runs_dir: Path,
    data_root: Path | None,
    tracking_uri: str | None,
    as_job: bool,
    as_json: bool,
) -> int:
    """Looks at this machine, or has a node look at itself; 1 where something is an error."""
    executor_of(place)  # refuses a name that is none
    if as_job:
        arguments = _arguments(grid, runs_dir, data_root)
        if tracking_uri is not None:  # as the job's environment: an address may hold a password
            os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
        screen = console(quiet=as_json)
        print_line(screen, "a job is submitted and waited for; ctrl-C cancels it")
        job, answer = run_as_job(arguments, place.site, runs_dir)
        findings = [Finding(**one) for one in answer["checks"]]
        return _tell(findings, str(answer["host"]), f"Slurm {job}", as_json=as_json)
    opened, faults = _opened(grid, runs_dir, data_root)
    context = Context(
        runs_dir=runs_dir.absolute(),
        data_root=readable_root(runs_dir, opened.data_root) if opened is not None else data_root,
        tracking_uri=tracking_uri,
        grid=opened,
        grid_faults=faults,
        executor=place.executor,
        site=place.site,
    )
    code = _tell(run_checks(context), platform.node(), placed_by().get("job"), as_json=as_json)
    if is_hanging():
        sys.stdout.flush()
        os._exit(code)
    return code


def _opened(
    grid: str | None, runs_dir: Path, data_root: Path | None
) -> tuple[OpenGrid | None, tuple[str, ...]]:
    """The grid, and why it cannot be opened."""
    if grid is None:
        return None, ()
    try:
        opened = open_grid(grid, runs_dir, data_root, None)
        # What is not here is told with what the grid reads.
        faults = tuple(line for line in opened.inputs.faults if not line.startswith(ABSENT))
        return opened, faults if opened.states else ()
    except UsageError as fault:
        return None, tuple(str(fault).splitlines())


def _arguments(grid: str | None, runs_dir: Path, data_root: Path | None) -> list[str]:
    """The same command's words, for the node."""
    words = [] if grid is None else [grid]
    words += ["--runs-dir", str(runs_dir.absolute())]
    return words if data_root is None else [*words, "--data-root", str(data_root.absolute())]


def _tell(findings: list[Finding], host: str, job: str | None, *, as_json: bool) -> int:
    counts = {status: sum(one.status == status for one in findings) for status in STYLES}
    if as_json:
        record: dict[str, Any] = {"host": host, "job": job, "counts": counts}
        print_json(record | {"checks": [dataclasses.asdict(one) for one in findings]})
    else:
        screen = console()
        print_line(screen, f"{host}{f' ({job})' if job else ''}", "bold")
        table = new_table(["", "what", "found", "what to do"], [])
        for one in findings:
            status = cell_text(one.status)
            status.stylize(STYLES[one.status])
            table.add_row(status, *map(cell_text, (one.name, one.said, one.advice)))
        screen.print(table)
        many = {"warning": "warnings", "error": "errors"}
        told = ", ".join(
            f"{count} {many.get(name, name) if count > 1 else name}"
            for name, count in counts.items()
            if count
        )
        print_line(screen, printable(told))
    return 1 if counts["error"] else 0
