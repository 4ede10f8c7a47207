"""How a grid's cells are to be run: what the command line says of it, and what follows of that."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from harness.cell.settings import RunSettings
from harness.errors import UsageError, shortened
from harness.execution.site import Site, read_site
from harness.grid.schema import GridSpec


@dataclass(frozen=True)
class Place:
    """Where the user wants the cells run. Nothing of it is part of a cell's identity."""

    executor: str = "local"
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, or a list of this machine's GPUs."""
    workers: int | None = None
    """CPU processes on one machine; None for one per core."""
    site: Site = field(default_factory=Site)
    follow: bool = False
    """Wait for the cells' jobs and show them, where an executor could return at once."""
    tracking_uri: str | None = None
    """Where a job may log to MLflow by itself: a server; None where it must not."""
    dry_run: bool = False
    """Tell what would be submitted, and submit nothing."""
    allow_data_mismatch: bool = False


def place_of_options(
    *,
    executor: str | None,
    cluster: Path | None,
    sbatch: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    follow: bool = False,
    dry_run: bool = False,
    allow_data_mismatch: bool = False,
) -> Place:
    """The place that the options of a command mean; they take precedence over the site file.

    Raises:
        UsageError: the site file, or `sbatch`, has faults, or an option is for another executor.
    """
    site = Site() if cluster is None else read_site(cluster)
    name = executor or site.executor or "local"
    given = {"--sbatch": sbatch is not None}
    if name == "local":
        given |= {"--follow": follow, "--dry-run": dry_run}
    if name in ("local", "ray"):
        for option in (option for option, is_given in given.items() if is_given):
            raise UsageError(f"{option}: is for a scheduler; give --executor slurm with it")
    if sbatch is not None:
        try:
            words = tuple(shlex.split(sbatch))
        except ValueError as fault:
            raise UsageError(f"--sbatch {shortened(sbatch)}: {fault}; see to its quotes") from fault
        site = site.model_copy(update={"sbatch": (*site.sbatch, *words)})
    return Place(
        executor=name,
        device=device,
        workers=workers,
        site=site,
        follow=follow,
        dry_run=dry_run,
        allow_data_mismatch=allow_data_mismatch,
    )


@dataclass(frozen=True)
class RunPlan:
    """Where a grid's cells run."""

    settings: RunSettings
    devices: tuple[str, ...] = ()
    """Of this machine, one worker process each: `cpu`, or `cuda:0`, ...; none where other machines
    run the cells."""
    place: Place = field(default_factory=Place)
    grid: GridSpec | None = None
    """What the cells belong to, for jobs that log to MLflow by themselves."""
    queued: frozenset[str] = frozenset()
    """Ids of cells that wait or run in a scheduler's queue already."""
    notes: tuple[str, ...] = ()
    """What the user should know before anything runs, one line each."""
