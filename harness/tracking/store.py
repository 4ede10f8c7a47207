"""An MLflow store: how it is opened, listed, written in batches and read back."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness.errors import StorageError, TrackingError, mask_secrets
from harness.records.results import RESULT_FILE, CellResult, read_result
from harness.tracking.address import ARTIFACTS_FOLDER, is_own, sqlite_path
from harness.tracking.database import HalfMade, check, connected, prepare
from harness.tracking.faults import NO_SERVER, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""A server that is down is noticed within seconds, and nothing else is called."""
FIRST_ANSWER_SECONDS = 60.0
"""How long a server has for its first answer, all attempts together."""
MAX_TAG = 5000
"""Characters of a tag that are kept."""
MAX_BATCH = 1000
"""Metrics in one request, the most that MLflow takes."""


@dataclass(frozen=True)
class TrackedRun:
    """A run that holds a cell's result."""

    run_id: str
    label: str
    cell_id: str
    result: CellResult
    artifact_uri: str
    """Where its artifacts are: `result.json`, `items/`, frames, the adapter."""


class Store:
    """An MLflow store, which raises MLflow's own errors.

    A local one keeps its runs' files in the runs folder.

    Args:
        uri: its address.
        runs_dir: the runs folder that it is opened for.
        write: whether a local one is made where there is none, and a broken one put aside; to be
            done in turn (`lock.turn`). Else nothing is made or changed.
    """

    def __init__(self, uri: str, runs_dir: Path, *, write: bool = True) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):  # what goes wrong is raised, and told once
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.uri = uri
        self.runs_dir = runs_dir
        self.database = sqlite_path(uri)
        self.is_own = is_own(uri, runs_dir)
        self.told: str | None = None
        """What was done to a broken database, in one line."""
        if self.database is not None and write:
            self.told = prepare(self.database, own=self.is_own, runs_dir=runs_dir)
        elif self.database is not None:
            _check(self.database)
        mlflow.set_tracking_uri(uri)

        def reach() -> MlflowClient:
            if self.database is None:
                _reach_database(uri)
            return MlflowClient(tracking_uri=uri)

        self.client = self._in_time(reach)

    def experiment_id(self, name: str) -> str:
        """Id of an experiment, made where it is absent."""
        from mlflow.exceptions import MlflowException

        found = self._in_time(lambda: self.client.get_experiment_by_name(name))
        if found is None:
            place = None if self.database is None else self._artifacts.as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except MlflowException:  # made all the same, its answer lost; or by a process elsewhere
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.name != name:
            raise TrackingError(f"MLflow at {mask_secrets(self.uri)}: {NO_SERVER}")
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _in_time(self, ask: Callable[[], T]) -> T:
        """What a server answers at first; one that answers drop by drop is not waited for.

        Raises:
            TrackingError: it does not answer in time.
        """
        if self.database is not None:
            return ask()
        answers: list[T] = []
        faults: list[Exception] = []

        def wait() -> None:
            try:
                answers.append(ask())
            except Exception as fault:  # raised below, in the thread that asked
                faults.append(fault)

        thread = threading.Thread(target=wait, name="mlflow-first-answer", daemon=True)
        thread.start()
        thread.join(FIRST_ANSWER_SECONDS)
        if faults:
            raise faults[0]
        if not answers:
            raise TrackingError(f"MLflow at {mask_secrets(self.uri)}: no answer (timed out)")
        return answers[0]

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, object]) -> str:
        """Starts a run; returns its id."""
        shown = {key: tag_text(value) for key, value in tags.items()}
        run = self.client.create_run(experiment_id, run_name=name, tags=shown)
        run_id = str(run.info.run_id)
        if self.database is not None:
            self._claim(run_id, run.info.artifact_uri)
        return run_id

    def _claim(self, run_id: str, stated: str) -> None:
        """Has the files of a run looked for in this runs folder, in whatever experiment it is."""
        place = f"{self._artifacts.as_uri()}/{run_id}/artifacts"
        if stated != place and self.database is not None:
            with connected(self.database, write=True) as database:
                query = "update runs set artifact_uri = ? where run_uuid = ?"
                database.execute(query, (place, run_id))

    @property
    def _artifacts(self) -> Path:
        return self.runs_dir.resolve() / ARTIFACTS_FOLDER

    def log_files(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Logs files, by their names among the run's."""
        for name, path in files.items():
            if self.database is None:
                self.client.log_artifact(run_id, str(path), name.rpartition("/")[0] or None)
            else:  # in place: MLflow would take the place that it has stored
                shutil.copyfile(path, self._new_artifact(run_id, name))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Logs a text as a file."""
        if self.database is None:
            self.client.log_text(run_id, text, name)
        else:
            self._new_artifact(run_id, name).write_text(text, encoding="utf-8")

    def _new_artifact(self, run_id: str, name: str) -> Path:
        """Where a run's file of this name is kept here; its folder is made."""
        target = self._artifacts / run_id / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def search(self, experiment_ids: Sequence[str], **tags: str) -> list[Run]:
        """Lists the runs with all of these `zbench.` tags, newest first, across all pages."""
        condition = " and ".join(f"tags.`zbench.{key}` = '{tags[key]}'" for key in tags)
        runs: list[Run] = []
        token = None
        while experiment_ids:
            page = self.client.search_runs(
                list(experiment_ids),
                filter_string=condition,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                break
        return runs

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Logs any number of metrics into a run."""
        for start in range(0, len(metrics), MAX_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])

    def tracked(self, run: Run) -> TrackedRun | None:
        """Reads the result that a run holds, None where it lacks `result.json`.

        Raises:
            TrackingError: the artifacts cannot be read.
        """
        run_id, cell_id = str(run.info.run_id), str(run.data.tags["zbench.cell_id"])
        path = self._artifact(run_id, run.info.artifact_uri, RESULT_FILE)
        try:
            result = None if path is None else read_result(path.parent)
        except StorageError as fault:
            raise TrackingError(str(fault)) from fault
        if result is None:
            return None
        label = run.info.run_name or run_id
        return TrackedRun(run_id, label, cell_id, result, run.info.artifact_uri)

    def file(self, tracked: TrackedRun, name: str) -> Path | None:
        """Local path of one of a run's files, None where it has none.

        Raises:
            TrackingError: the run has it, or may have it, but it cannot be read.
        """
        return self._artifact(tracked.run_id, tracked.artifact_uri, name)

    def _artifact(self, run_id: str, root: str, name: str) -> Path | None:
        """Local path of a run's artifact below `root`, None where the run has none of this name.

        Raises:
            TrackingError: the run has it, or may have it, but it cannot be read.
        """
        if root.startswith("file:"):
            return self._local_artifact(run_id, root, name)
        from mlflow.artifacts import download_artifacts

        try:
            found = download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=self.uri)
            return Path(found)
        except Exception:  # of many kinds, also where the run has no such artifact
            with store_errors(self.uri):
                folder = name.rpartition("/")[0] or None
                if name in {entry.path for entry in self.client.list_artifacts(run_id, folder)}:
                    raise
            return None

    def _local_artifact(self, run_id: str, root: str, name: str) -> Path | None:
        """In place: MLflow would copy it, in 20 ms, from where the runs folder once was."""
        path = self._artifacts / run_id / "artifacts" / name
        if not self.is_own and not path.is_file():  # of another runs folder, or of a server here
            path = Path(url2pathname(urlsplit(root).path)) / name
        return path if path.is_file() else None


def tag_text(value: object) -> str:
    """A value as a tag holds it: without secrets, and cut."""
    return mask_secrets(str(value))[:MAX_TAG]


def _reach_database(uri: str) -> None:
    """Connects once to a database server: MLflow tries for 100 s to reach one that is down."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        import sqlalchemy

        sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()


def _check(database: Path) -> None:
    try:
        check(database)
    except HalfMade as why:
        raise TrackingError(
            f"{database}: is half made or damaged ({why}); `zbench sync` makes it anew"
        ) from why
