"""The commands: parse, call, print. No logic lives here, and nothing heavy is imported at the top.

Exit codes: 0 done, 1 a cell failed or another error, 2 wrong use or grid, 70 a fault of zbench
itself (a file holds its traceback), 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness.commands.adapting import export_adapter_command, import_adapter_command
from harness.commands.answering import generate_command
from harness.commands.arguments import (
    SEVERAL_RUNS,
    CellArgument,
    ClusterOption,
    Commands,
    DataOption,
    DebugOption,
    DeviceOption,
    DryRunOption,
    EveryOption,
    ExecutorOption,
    FollowOption,
    GridArgument,
    JsonOption,
    MismatchOption,
    OnlyOption,
    ReportsOption,
    RunsOption,
    SbatchOption,
    SeveralRunsOption,
    UriOption,
    WatchOption,
    WorkersOption,
)
from harness.commands.comparing import compare_command, drift_command
from harness.commands.judging import judge_command
from harness.commands.keeping import clean_command, merge_command, verify_command
from harness.commands.preparing import doctor_command, prefetch_command
from harness.commands.previewing import preview_command
from harness.commands.starting import init_command, schema_command
from harness.terminal import print_in_any_encoding

if TYPE_CHECKING:
    from harness.grid.folders import Runs
    from harness.grid.workspace import OpenGrid

app = typer.Typer(
    cls=Commands,
    help="Fine-tune and evaluate a grid of experiments, and print a paper's tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


RUNS, REPORTS = Path("runs"), Path("reports")
INTERRUPTED = 130  # exit code after ctrl-C or SIGTERM


def _open(grid: str, runs: Runs, data_root: Path | None, only: str | None = None) -> OpenGrid:
    from harness.grid.workspace import open_grid

    return open_grid(grid, runs, data_root, only, results_alone=True)


def _open_to_run(
    grid: str,
    runs_dir: Path,
    data_root: Path | None,
    only: str | None,
    allow_data_mismatch: bool,
) -> OpenGrid:
    from harness.grid.workspace import open_to_run

    return open_to_run(grid, runs_dir, data_root, only, allow_data_mismatch=allow_data_mismatch)


@app.callback(invoke_without_command=True)
def version_or_help(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of zbench itself."""
    if version:
        from harness import __version__

        typer.echo(f"zbench {__version__}")
        raise typer.Exit


@app.command("run-grid")
def run_grid_command(
    grid: GridArgument = "demo",
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    tracking_uri: UriOption = None,
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    cluster: ClusterOption = None,
    sbatch: SbatchOption = None,
    follow: FollowOption = False,
    dry_run: DryRunOption = False,
    allow_data_mismatch: MismatchOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Run what is not done yet of a grid; the same command again resumes where it stopped."""
    from harness.commands import run_grid
    from harness.execution.plan import place_of_options

    place = place_of_options(
        executor=executor,
        cluster=cluster,
        sbatch=sbatch,
        device=device,
        workers=workers,
        follow=follow,
        dry_run=dry_run,
        allow_data_mismatch=allow_data_mismatch,
    )
    return run_grid.run_grid_command(
        _open_to_run(grid, runs_dir, data_root, only, allow_data_mismatch),
        place,
        tracking_uri=tracking_uri,
        as_json=as_json,
    )


@app.command("report")
def report_command(
    grid: GridArgument = "demo",
    runs_dir: SeveralRunsOption = SEVERAL_RUNS,
    data_root: DataOption = None,
    reports_dir: ReportsOption = REPORTS,
    tracking_uri: UriOption = None,
    only: OnlyOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Render the tables and figures of a grid; of other machines' cells from MLflow."""
    from harness.commands import report

    return report.report_command(
        _open(grid, runs_dir, data_root, only),
        reports_dir=reports_dir,
        tracking_uri=tracking_uri,
        as_json=as_json,
    )


@app.command("plan")
def plan_command(
    grid: GridArgument,
    hardware: Annotated[
        str | None, typer.Option("--hardware", help="Hours, money, memory on a GPU: h200, ...")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure 20 steps of each method here, and estimate.")
    ] = False,
    price: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="Of one GPU, any currency.")
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="Id, GPUs, label of each cell to run, for a scheduler.")
    ] = False,
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    allow_data_mismatch: MismatchOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Validate a grid and list its cells; say what they cost on a GPU, or on this machine."""
    from harness.commands import cell_list, plan

    opened = _open_to_run(grid, runs_dir, data_root, only, allow_data_mismatch)
    if ids:
        return cell_list.list_cells(opened, alone=not (as_json or hardware or probe or price))
    if hardware is None and not probe and price is None:
        return plan.plan_command(opened, as_json=as_json)
    return plan.estimate_command(
        opened,
        hardware=hardware,
        probe=probe,
        price_per_hour=price,
        device=device,
        workers=workers,
        allow_data_mismatch=allow_data_mismatch,
        as_json=as_json,
    )


@app.command("status")
def status_command(
    grid: GridArgument = "demo",
    runs_dir: SeveralRunsOption = SEVERAL_RUNS,
    data_root: DataOption = None,
    only: OnlyOption = None,
    watch: WatchOption = False,
    every: EveryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Show what is done, running (where, how far) and failed, with each failure's line and log."""
    from harness.commands import status
    from harness.commands import watch as watching
    from harness.errors import UsageError

    if every is not None and not watch:
        raise UsageError("--every: is for --watch; give both")
    if watch and as_json:
        raise UsageError("--watch, --json: give one of them; --json tells what is so now")
    opened = _open(grid, runs_dir, data_root, only)
    if watch:
        return watching.watch_command(opened, seconds=every)
    return status.status_command(opened, as_json=as_json)


@app.command("run-cell")
def run_cell_command(
    grid: GridArgument,
    cell: CellArgument,
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    tracking_uri: UriOption = None,
    device: DeviceOption = "auto",
    allow_data_mismatch: MismatchOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Run one cell in this process, with a traceback if it fails."""
    from harness.commands import run_cell
    from harness.grid.workspace import open_grid

    return run_cell.run_cell_command(
        open_grid(grid, runs_dir, data_root, None),
        cell,
        tracking_uri=tracking_uri,
        device=device,
        allow_data_mismatch=allow_data_mismatch,
        as_json=as_json,
    )


@app.command("sync")
def sync_command(
    grid: GridArgument = "demo",
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    tracking_uri: UriOption = None,
    debug: DebugOption = False,
) -> int:
    """Log into MLflow what the cells' folders hold and MLflow lacks."""
    from harness.commands import sync

    return sync.sync_command(_open(grid, runs_dir, data_root), tracking_uri=tracking_uri)


@app.command("theory")
def theory_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer numbers and repetitions: about 10 seconds.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Drawn truths and continuous x too: minutes.")
    ] = False,
    runs_dir: RunsOption = RUNS,
    reports_dir: ReportsOption = REPORTS,
    tracking_uri: UriOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Simulate the theory's convergence rates: slopes, figure and page."""
    from harness.commands import theory

    return theory.theory_command(
        theory.chosen_size(quick=quick, full=full),
        reports_dir=reports_dir,
        runs_dir=runs_dir,
        tracking_uri=tracking_uri,
        as_json=as_json,
    )


app.command("export-adapter")(export_adapter_command)
app.command("import-adapter")(import_adapter_command)
app.command("preview")(preview_command)
app.command("generate")(generate_command)
app.command("judge")(judge_command)
app.command("compare")(compare_command)
app.command("drift")(drift_command)
app.command("verify")(verify_command)
app.command("clean")(clean_command)
app.command("init")(init_command)
app.command("schema")(schema_command)
app.command("merge")(merge_command)
app.command("prefetch")(prefetch_command)
app.command("doctor")(doctor_command)


def main() -> NoReturn:
    """Runs the command line; every expected fault is one line on stderr."""
    gc.set_threshold(300_000)  # imports leave no garbage: looking for it takes a tenth of a start
    print_in_any_encoding()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as done:  # typer's own answer to ctrl-C
        code = done.code
    except BrokenPipeError:  # the reader of our output has gone, as in `zbench plan X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as fault:  # of zbench itself: one line, and a file with the traceback
        if "--debug" in sys.argv:
            raise
        from harness.commands.faults import explain

        code = explain(fault)
    if code == INTERRUPTED:
        print("zbench: interrupted; run the same command again to resume", file=sys.stderr)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
