"""Finds one run in an MLflow store by its id or name; nothing is made or changed there."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import TrackingError, UsageError, mask_secrets
from harness.grid.folders import items_path
from harness.records.results import RESULT_FILE
from harness.tracking.address import sqlite_path
from harness.tracking.faults import store_errors
from harness.tracking.store import Store, TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)


class RunLookup:
    """The cells' runs in all experiments of one MLflow store, listed once."""

    def __init__(self, uri: str, runs_dir: Path) -> None:
        self.uri, self.runs_dir = uri, runs_dir

    def exists(self) -> bool:
        """Whether there is a store: looking for a local file does not make it."""
        path = sqlite_path(self.uri)
        return path is None or path.is_file()

    def find(self, name: str) -> TrackedRun | None:
        """The run of this id, or the newest finished one of this name; None without any.

        Raises:
            UsageError: the run holds no result.
            TrackingError: the store cannot be reached.
        """
        named = [run for run in self._runs if name in (run.info.run_id, run.info.run_name)]
        if not named:
            return None
        complete = [run for run in named if "zbench.content" in run.data.tags]
        if not complete:
            raise UsageError(
                f"{name}: this MLflow run holds no result (its cell runs or has failed); "
                "`zbench sync` logs what the cell's folder holds"
            )
        tracked = self._store.tracked(complete[0])
        if tracked is None:
            raise UsageError(
                f"{name}: the artifacts of this MLflow run lack {RESULT_FILE} "
                f"({mask_secrets(self.uri)}); name the cell's folder instead"
            )
        return tracked

    def names(self) -> list[str]:
        """Names of the cells' runs, newest first.

        Raises:
            TrackingError: the store cannot be reached.
        """
        return list(dict.fromkeys(run.info.run_name for run in self._runs if run.info.run_name))

    def items_file(self, run: TrackedRun, benchmark: str, evaluation: str) -> Path | None:
        """Local path of a run's per-item records, or None where it has none."""
        name = str(items_path(Path(), benchmark, evaluation))
        try:
            return self._store.file(run, name)
        except TrackingError as fault:
            logger.warning("warning: %s: left out %s: %s", run.label, name, fault)
            return None

    @cached_property
    def _store(self) -> Store:
        with store_errors(self.uri):
            return Store(self.uri, self.runs_dir, write=False)

    @cached_property
    def _runs(self) -> list[Run]:
        with store_errors(self.uri):
            experiments = [e.experiment_id for e in self._store.client.search_experiments()]
            return self._store.search(experiments, kind="cell")
