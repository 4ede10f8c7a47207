"""An MLflow store: its URI, and how it is opened, listed, written in batches and read back."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness.errors import TrackingError
from harness.grid.schema import GridSpec
from harness.records.results import RESULT_FILE, CellResult, read_result

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""A server that is down is noticed within seconds, and nothing else is called."""
MAX_BATCH = 1000
"""Metrics in one request, the most that MLflow takes."""


def default_uri(runs_dir: Path) -> str:
    """The tracking URI of a runs folder: `sqlite:///<runs>/mlflow.db`."""
    return f"sqlite:///{(runs_dir / 'mlflow.db').resolve()}"


def resolve_uri(grid: GridSpec | None, runs_dir: Path, option: str | None) -> str:
    """The URI of the option, else of MLFLOW_TRACKING_URI, of the grid, or the default."""
    chosen = option or os.environ.get("MLFLOW_TRACKING_URI") or (grid and grid.tracking.uri)
    return chosen or default_uri(runs_dir)


def hide_password(uri: str) -> str:
    """The URI without the user and password that it may carry."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    path = re.sub(r"(password=)[^&]*", r"\1***", path)
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def shown_uri(uri: str, runs_dir: Path) -> str:
    """The URI for a page that others read: no password, and no folder above `runs_dir`."""
    if uri == default_uri(runs_dir) and not runs_dir.is_absolute():
        return f"sqlite:///{runs_dir / 'mlflow.db'}"
    return hide_password(uri)


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns what goes wrong with a store into a TrackingError that names it, in one line."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as fault:
        said = " ".join(str(fault).split()) or type(fault).__name__
        silence = re.search(r"\[Errno -?\d+\] ([A-Z][a-z ]+)|(timed out)", said)
        if silence and uri.startswith("http"):
            said = f"no answer ({silence[1] or silence[2]})"
        said = said.replace(uri, hide_password(uri))[:300]
        raise TrackingError(f"MLflow at {hide_password(uri)}: {said}") from fault


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
    """An MLflow store; a local one is made where there is none. It raises MLflow's own errors."""

    def __init__(self, uri: str) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(uri)
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)

    def experiment_id(self, name: str, runs_dir: Path) -> str:
        """Id of an experiment, made where it is absent, in `runs_dir` for a local store."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            local = self.uri.startswith("sqlite:")
            place = (runs_dir / "artifacts").resolve().as_uri() if local else None
            return str(self.client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

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
        if path is None or (result := read_result(path.parent)) is None:
            return None
        label = run.info.run_name or run_id
        return TrackedRun(run_id, label, cell_id, result, run.info.artifact_uri)

    def file(self, tracked: TrackedRun, name: str) -> Path | None:
        """Local path of one of a run's files, None where it has none.

        One that cannot be read counts as none, with a warning: the results lack it.
        """
        try:
            return self._artifact(tracked.run_id, tracked.artifact_uri, name)
        except TrackingError as fault:
            logger.warning("%s: left out %s, which cannot be read: %s", tracked.label, name, fault)
            return None

    def _artifact(self, run_id: str, root: str, name: str) -> Path | None:
        """Local path of a run's artifact below `root`, None where the run has none of this name.

        Raises:
            TrackingError: the run has it, or may have it, but it cannot be read.
        """
        if root.startswith("file:"):  # in place: MLflow would copy it, in 20 ms
            path = Path(url2pathname(urlsplit(root).path)) / name
            return path if path.is_file() else None
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
