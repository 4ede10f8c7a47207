"""Finding one run in an MLflow store by its id or name; nothing is made or changed there."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.grid.folders import ITEMS_FOLDER, items_path
from harness.records.results import RESULT_FILE, CellResult, read_result
from harness.tracking.runs import ENVIRONMENT
from harness.tracking.uri import hide_password, tracking_error

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class FoundRun:
    """A cell's run that holds a result."""

    run_id: str
    label: str
    result: CellResult


class RunLookup:
    """Looks for cells' runs in all experiments of one MLflow store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def exists(self) -> bool:
        """Returns whether there is a store: a local file is not made by looking for it."""
        path = self.uri.removeprefix("sqlite:///")
        return path == self.uri or Path(path).is_file()

    def find(self, name: str) -> FoundRun | None:
        """Returns the run of this id, or the newest finished one of this name; None without any.

        Raises:
            UsageError: the run holds no result.
            TrackingError: the store cannot be reached.
        """
        mine = [run for run in self._runs if name in (run.info.run_id, run.info.run_name)]
        complete = [run for run in mine if "zbench.content" in run.data.tags]
        if not mine:
            return None
        if not complete:
            raise UsageError(
                f"{name}: this MLflow run holds no result (its cell runs or has failed); "
                "`zbench sync` logs what the cell's folder holds"
            )
        run = complete[0]
        path = self._download(run.info.run_id, RESULT_FILE)
        result = read_result(path.parent) if path is not None else None
        if result is None:
            raise UsageError(
                f"{name}: the artifacts of this MLflow run lack {RESULT_FILE} "
                f"({hide_password(self.uri)}); name the cell's folder instead"
            )
        return FoundRun(run.info.run_id, run.info.run_name or run.info.run_id, result)

    def names(self) -> list[str]:
        """Returns the names of the cells' runs, newest first.

        Raises:
            TrackingError: the store cannot be reached.
        """
        return list(dict.fromkeys(run.info.run_name for run in self._runs if run.info.run_name))

    def items_file(self, run: FoundRun, benchmark: str, key: str) -> Path | None:
        """Returns a local path of a run's per-item records, or None where it has none."""
        name = items_path(Path(), benchmark, key).name
        return self._download(run.run_id, f"{ITEMS_FOLDER}/{name}")

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return MlflowClient(tracking_uri=self.uri)

    @cached_property
    def _runs(self) -> list[Run]:
        try:
            experiments = [entry.experiment_id for entry in self._client.search_experiments()]
            runs: list[Run] = []
            token = None
            while experiments:
                page = self._client.search_runs(
                    experiments,
                    filter_string="tags.`zbench.kind` = 'cell'",
                    max_results=1000,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                runs += page
                token = page.token
                if not token:
                    break
            return runs
        except Exception as fault:
            raise tracking_error(self.uri, fault) from fault

    def _download(self, run_id: str, name: str) -> Path | None:
        from mlflow.artifacts import download_artifacts

        try:
            return Path(
                download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=self.uri)
            )
        except Exception:
            return None
