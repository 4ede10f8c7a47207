"""The executors by name; a new one is a file here and an entry."""

from __future__ import annotations

from collections.abc import Callable

from harness.execution.executor import Executor
from harness.execution.local import LocalExecutor
from harness.execution.ray_cluster import RayExecutor
from harness.execution.slurm.executor import SlurmExecutor

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "local": LocalExecutor,
    "ray": RayExecutor,
    "slurm": SlurmExecutor,
}
