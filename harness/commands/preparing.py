"""The command lines of `prefetch` and `doctor`: what is done before a grid starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import (
    ClusterOption,
    DataOption,
    DebugOption,
    ExecutorOption,
    GridArgument,
    JsonOption,
    RunsOption,
    SbatchOption,
    UriOption,
    expanded_path,
)

RUNS = Path("runs")
OneGrid = Annotated[
    str | None, typer.Argument(metavar="GRID", help="What this grid needs is looked at too.")
]
AsJobOption = Annotated[
    bool, typer.Option("--as-job", help="Have a node of the Slurm cluster look at itself.")
]

ToOption = Annotated[
    Path,
    typer.Option("--to", callback=expanded_path, help="The folder to fill; then --data-root."),
]
UpdateOption = Annotated[
    bool, typer.Option("--update", help="Take the newest commits, where it was filled before.")
]


def prefetch_command(
    grid: GridArgument,
    to: ToOption,
    data_root: DataOption = None,
    update: UpdateOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Fetch models, data and benchmarks of a grid into a folder, to run it without network."""
    from harness.commands import prefetch

    return prefetch.prefetch_command(grid, to, data_root=data_root, update=update, as_json=as_json)


def doctor_command(
    grid: OneGrid = None,
    runs_dir: RunsOption = RUNS,
    data_root: DataOption = None,
    tracking_uri: UriOption = None,
    executor: ExecutorOption = None,
    cluster: ClusterOption = None,
    sbatch: SbatchOption = None,
    as_job: AsJobOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Look at this machine, its disks, servers and scheduler; say what stands in the way."""
    from harness.commands import doctor
    from harness.execution.plan import place_of_options

    if executor is None and (as_job or sbatch is not None):
        executor = "slurm"
    return doctor.doctor_command(
        grid,
        place_of_options(executor=executor, cluster=cluster, sbatch=sbatch),
        runs_dir=runs_dir,
        data_root=data_root,
        tracking_uri=tracking_uri,
        as_job=as_job,
        as_json=as_json,
    )
