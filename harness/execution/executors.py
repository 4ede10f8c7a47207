"""The executors by name: zbench's own, and those of other packages by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from harness.errors import UsageError, did_you_mean, one_line, shortened
from harness.execution.executor import Executor
from harness.execution.local import LocalExecutor
from harness.execution.plan import Place
from harness.execution.ray_cluster import RayExecutor
from harness.execution.slurm.executor import SlurmExecutor

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "local": LocalExecutor,
    "ray": RayExecutor,
    "slurm": SlurmExecutor,
}
GROUP = "zbench.executors"
"""Group of the entry points of other packages' executors; each points to a class, by its name on
the command line. A name that zbench has itself stands for zbench's own."""


def executor_names() -> list[str]:
    """The names of all executors; no package is imported."""
    return [*EXECUTORS, *sorted(entry_points(group=GROUP).names - EXECUTORS.keys())]


def executor_of(place: Place) -> Executor:
    """The executor that a command line or a site file names.

    Raises:
        UsageError: there is none.
    """
    by_site = place.executor == place.site.executor
    return find_executor(place.executor, "--cluster: executor" if by_site else "--executor")


def find_executor(name: str, named_by: str = "--executor") -> Executor:
    """The executor of a name, which an option or the key of a site file gave.

    Raises:
        UsageError: there is none, or its package cannot be imported.
    """
    if name in EXECUTORS:
        return EXECUTORS[name]()
    for entry in entry_points(group=GROUP, name=name):
        try:
            executor: Executor = entry.load()()
            for needed in ("prepare", "describe", "run"):
                getattr(executor, needed)
        except (Exception, SystemExit) as fault:  # a stranger's code: told, with its cause
            package = entry.dist.name if entry.dist else "a package"
            raise UsageError(
                f"{named_by} {name}: {entry.value} of {package} is no executor "
                f"({type(fault).__name__}: {one_line(fault)}); correct the package, or uninstall it"
            ) from fault
        return executor
    known = did_you_mean(name, executor_names())
    raise UsageError(f"{named_by} {shortened(name)}: no such executor{known}")
