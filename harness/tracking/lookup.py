"""Finds one run in an MLflow store by its id or name; nothing is made or changed there."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.grid.folders import items_path
from harness.records.results import RESULT_FILE
from harness.tracking.store import Store, TrackedRun, hide_password, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run


class RunLookup:
    """The cells' runs in all experiments of one MLflow store, listed once."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def exists(self) -> bool:
        """Whether there is a store: looking for a local file does not make it."""
        path = self.uri.removeprefix("sqlite:///")
        return path == self.uri or Path(path).is_file()

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
                f"({hide_password(self.uri)}); name the cell's folder instead"
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
        return self._store.file(run, str(items_path(Path(), benchmark, evaluation)))

    @cached_property
    def _store(self) -> Store:
        return Store(self.uri)

    @cached_property
    def _runs(self) -> list[Run]:
        with store_errors(self.uri):
            experiments = [e.experiment_id for e in self._store.client.search_experiments()]
            return self._store.search(experiments, kind="cell")
