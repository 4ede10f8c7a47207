"""The arguments and options that commands share, and how a path on the command line is read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

RUNS_FLAG = "--runs-dir"
RUNS_VARIABLE = "ZBENCH_RUNS_DIR"


def expanded_path(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """A path of the command line or the environment, with `~` expanded."""
    if value is None:
        return None
    from harness.errors import UsageError
    from harness.readers.files import user_path

    try:
        return user_path(value)
    except UsageError as fault:
        raise UsageError(f"{param.opts[0]}: {fault}") from fault


class Commands(TyperGroup):
    """The commands of zbench. One that takes one runs folder refuses a second, instead of the first
    being passed over."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, and its words."""
        name, command, rest = super().resolve_command(ctx, args)
        given = [word for word in rest if word.partition("=")[0] == RUNS_FLAG]
        takes = [one for one in command.params if one.name == "runs_dir"] if command else []
        if len(given) > 1 and takes and not takes[0].multiple:
            from harness.errors import UsageError

            raise UsageError(f"{RUNS_FLAG}: is given {len(given)} times; {name} takes one folder")
        return name, command, rest


def runs_folders(ctx: typer.Context, param: typer.CallbackParam, value: list[Path]) -> list[Path]:
    """The runs folders of an option that may be repeated; one that is given twice counts once.

    The environment names one, whatever is in its name: typer would split it at each `:`.
    """
    source = ctx.get_parameter_source(param.name or "")
    if source is not None and source.name == "ENVIRONMENT":
        value = [Path(os.environ[RUNS_VARIABLE])]
    found = dict.fromkeys(filter(None, (expanded_path(param, path) for path in value)))
    for folder in found if len(found) > 1 else ():
        if not folder.is_dir():
            from harness.errors import UsageError

            raise UsageError(f"--runs-dir {folder}: no such folder; name those that hold cells")
    return list(found)


def shipped_or_own_grids(incomplete: str) -> list[str]:
    """What a shell offers for GRID: grids that ship, YAML files, and folders on the way to them."""
    shipped = sorted(path.stem for path in (Path(__file__).parents[1] / "grids").glob("*.yaml"))
    folder = incomplete[: incomplete.rfind("/") + 1]
    with contextlib.suppress(OSError):
        for path in sorted(Path(folder).expanduser().iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                shipped.append(f"{folder}{path.name}/")
            elif path.suffix in (".yaml", ".yml"):
                shipped.append(f"{folder}{path.name}")
    return [name for name in shipped if name.startswith(incomplete)]


def known_executors(incomplete: str) -> list[str]:
    """What a shell offers for --executor."""
    from harness.execution.executors import executor_names

    return [name for name in executor_names() if name.startswith(incomplete)]


def known_methods(incomplete: str) -> list[str]:
    """What a shell offers for --methods: names that continue a list with commas."""
    from harness.methods import METHODS

    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in METHODS if (before + name).startswith(incomplete)]


GridArgument = Annotated[
    str,
    typer.Argument(
        metavar="GRID",
        help="A shipped grid's name, or a YAML file.",
        autocompletion=shipped_or_own_grids,
    ),
]
CellArgument = Annotated[
    str, typer.Argument(metavar="CELL", help="Id or its beginning, label, folder, or GRID:CELL.")
]
RunsOption = Annotated[
    Path,
    typer.Option(
        "--runs-dir", envvar=RUNS_VARIABLE, callback=expanded_path, help="Where cells are kept."
    ),
]
SeveralRunsOption = Annotated[
    list[Path],
    typer.Option(
        "--runs-dir",
        envvar=RUNS_VARIABLE,
        callback=runs_folders,
        help="Where cells are kept; repeat it to read several.",
    ),
]
SEVERAL_RUNS = [Path("runs")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", callback=expanded_path, help="Local data and checkpoints; else the hub."
    ),
]
ReportsOption = Annotated[
    Path,
    typer.Option(
        "--reports-dir",
        callback=expanded_path,
        help="The report goes to <reports-dir>/<its name>/.",
    ),
]
UriOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow, or none; default sqlite:///<runs-dir>/mlflow.db."),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", help="Cells whose label or id holds all these words.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, or a list such as cuda:0,cuda:1.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="CPU processes; default one per core.")
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Who places the cells: local, slurm, ray.",
        autocompletion=known_executors,
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        envvar="ZBENCH_CLUSTER",
        callback=expanded_path,
        help="A site file: executor, sbatch, setup, max_parallel, ...",
    ),
]
SbatchOption = Annotated[
    str | None, typer.Option("--sbatch", help="Words for sbatch, after those of the site file.")
]
FollowOption = Annotated[
    bool, typer.Option("--follow", help="Show the jobs until they have ended, and log to MLflow.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")
]
MismatchOption = Annotated[
    bool, typer.Option("--allow-data-mismatch", help="Data of another version; scores say so.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Show it again and again, until nothing runs or is queued.")
]
EveryOption = Annotated[
    float | None,
    typer.Option("--every", min=1, help="Seconds between two views; default 5, in a log 180."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
