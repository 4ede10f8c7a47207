"""The runs of a grid in an MLflow store: made, found, closed, replayed and read back."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import TrackingError
from harness.grid.folders import ADAPTER_FOLDER, CELL_FILE, ITEMS_FOLDER, LOG_FILE, STEPS_FILE
from harness.grid.schema import Cell, GridSpec
from harness.grid.status import CellState
from harness.records.environment import git_commit
from harness.records.results import RESULT_FILE, CellResult, read_result
from harness.tracking.metrics import (
    cell_params,
    content_hash,
    result_metrics,
    steps_metrics,
    training_hash,
)
from harness.tracking.uri import tracking_error

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

LARGEST_ADAPTER_BYTES = 512 * 2**20
"""Trained tensors above this stay in the cell's folder; the run names their place in a tag."""
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


@dataclass(frozen=True)
class TrackedRun:
    """A cell as MLflow knows it."""

    run_id: str
    cell_id: str
    result: CellResult
    artifacts: Path
    """Local folder with the run's small artifacts (`result.json`, `items/`, frames)."""


class GridRuns:
    """The runs of one grid in one MLflow store.

    Raises:
        TrackingError: the store cannot be reached or made.
    """

    def __init__(self, grid: GridSpec, uri: str, runs_dir: Path) -> None:
        self.grid = grid
        self.uri = uri
        self.runs_dir = runs_dir
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            self.client = self._connect()
            self.experiment_id = self._experiment()
            self.parent_id = self._parent()
        except Exception as fault:
            raise tracking_error(uri, fault) from fault

    def _connect(self) -> MlflowClient:
        import mlflow
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self.uri)
        return MlflowClient(tracking_uri=self.uri)

    def _experiment(self) -> str:
        name = self.grid.tracking.experiment or self.grid.name
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        place = (self.runs_dir / "artifacts").resolve().as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _parent(self) -> str:
        tags = {"zbench.kind": "grid", "zbench.grid": self.grid.name}
        found = self._search(tags)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            self._log_grid(run_id)
            return run_id
        run = self.client.create_run(
            self.experiment_id,
            run_name=self.grid.name,
            tags=tags | {"zbench.git_commit": git_commit() or "unknown"},
        )
        self._log_grid(str(run.info.run_id))
        return str(run.info.run_id)

    def _log_grid(self, run_id: str) -> None:
        """Logs the grid's text as it is now."""
        if self.grid.text:
            self.client.log_text(run_id, self.grid.text, "grid.yaml")

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        """Returns the runs with these tags, newest first, across all pages."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string=condition,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def cell_runs(self) -> dict[str, list[Run]]:
        """Returns the child runs by cell id, newest first."""
        runs: dict[str, list[Run]] = {}
        for run in self._search({"zbench.kind": "cell"}):
            runs.setdefault(run.data.tags["zbench.cell_id"], []).append(run)
        return runs

    def create_cell_run(self, cell: Cell) -> str:
        """Starts a child run and logs what the cell is; returns its id."""
        from mlflow.entities import Param

        run = self.client.create_run(
            self.experiment_id,
            run_name=cell.label,
            tags={
                "mlflow.parentRunId": self.parent_id,
                "zbench.kind": "cell",
                "zbench.grid": self.grid.name,
                "zbench.cell_id": cell.id,
                "zbench.owner": owner(),
            },
        )
        params = [Param(key, str(value)[:6000]) for key, value in cell_params(cell).items()]
        self.client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

    def log_result(self, run_id: str, result: CellResult, folder: Path) -> None:
        """Logs a result's scores, costs and files into a run, and closes it."""
        from mlflow.entities import RunTag

        metrics = result_metrics(result)
        for start in range(0, len(metrics), MAX_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])
        tags = {f"zbench.{key}": str(value)[:5000] for key, value in result.environment.items()}
        tags |= {f"zbench.base.{key}": str(value)[:5000] for key, value in result.base.items()}
        tags |= {f"zbench.estimate.{key}": str(value) for key, value in result.estimate.items()}
        tags |= {"zbench.content": content_hash(folder), "zbench.folder": str(folder)}
        tags["zbench.error"] = result.error.message if result.error else ""
        self._log_files(run_id, folder, tags)
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        failed = result.error is not None
        self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def _log_files(self, run_id: str, folder: Path, tags: dict[str, str]) -> None:
        # The steps, and what the method kept of its training.
        frames = sorted(path.name for path in folder.glob("*.parquet"))
        for name in (CELL_FILE, LOG_FILE, *frames):
            if (folder / name).is_file():
                self.client.log_artifact(run_id, str(folder / name))
        if (folder / ITEMS_FOLDER).is_dir():
            self.client.log_artifacts(run_id, str(folder / ITEMS_FOLDER), ITEMS_FOLDER)
        adapter = folder / ADAPTER_FOLDER
        if adapter.is_dir():
            size = sum(path.stat().st_size for path in adapter.rglob("*") if path.is_file())
            if size <= LARGEST_ADAPTER_BYTES:
                self.client.log_artifacts(run_id, str(adapter), ADAPTER_FOLDER)
            else:
                tags["zbench.adapter"] = f"{adapter} ({size} bytes, not copied)"
        if (folder / RESULT_FILE).is_file():  # last: it marks the run as complete
            self.client.log_artifact(run_id, str(folder / RESULT_FILE))

    def close(self) -> None:
        """Marks the grid's own run as finished for now."""
        self.client.set_terminated(self.parent_id)

    def sync(self, states: Sequence[CellState]) -> int:
        """Logs what cells' folders hold and MLflow lacks; returns the number of cells logged.

        Raises:
            TrackingError: the store cannot be reached.
        """
        logged = 0
        try:
            known = self.cell_runs()
            for state in states:
                runs = known.get(state.cell.id, [])
                if state.status == "running":
                    continue
                complete = state.result is not None and _finished(runs, state)
                open_runs = [run for run in runs if run.info.status == "RUNNING"]
                if any(is_alive(run.data.tags.get("zbench.owner", "")) for run in open_runs):
                    continue  # another process is logging it now
                for run in open_runs:  # their processes were killed
                    self.client.set_terminated(run.info.run_id, "KILLED")
                if state.result is None or complete:
                    continue
                self.replay(state)
                logged += 1
        except TrackingError:
            raise
        except Exception as fault:
            raise tracking_error(self.uri, fault) from fault
        return logged

    def replay(self, state: CellState) -> None:
        """Logs all that a cell's folder holds, into the run of its training where there is one."""
        assert state.result is not None
        run_id = same_training(self.cell_runs().get(state.cell.id, []), state.result)
        if run_id is None:
            run_id = self.create_cell_run(state.cell)
            metrics = steps_metrics(state.folder / STEPS_FILE)
            for start in range(0, len(metrics), MAX_BATCH):
                self.client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])
            self.tag_training(run_id, state.result)
        self.log_result(run_id, state.result, state.folder)

    def tag_training(self, run_id: str, result: CellResult) -> None:
        self.client.set_tag(run_id, "zbench.training", training_hash(result))

    def read(self) -> list[TrackedRun]:
        """Returns the newest complete run of each cell of the experiment.

        Raises:
            TrackingError: the store or its artifacts cannot be read.
        """
        from mlflow.artifacts import download_artifacts

        tracked = []
        try:
            for cell_id, runs in self.cell_runs().items():
                for run in runs:
                    if "zbench.content" not in run.data.tags:
                        continue
                    path = Path(download_artifacts(
                        run_id=run.info.run_id, artifact_path=RESULT_FILE,
                        tracking_uri=self.uri,
                    ))  # fmt: skip
                    result = read_result(path.parent)
                    assert result is not None
                    tracked.append(TrackedRun(run.info.run_id, cell_id, result, path.parent))
                    break
        except Exception as fault:
            raise tracking_error(self.uri, fault) from fault
        return tracked

    def items_file(self, tracked: TrackedRun, name: str) -> Path | None:
        """Returns a local path of a run's per-item records, or None where it has none."""
        return self.file(tracked, f"{ITEMS_FOLDER}/{name}")

    def file(self, tracked: TrackedRun, name: str) -> Path | None:
        """Returns a local path of one of a run's files, or None where it has no such file."""
        from mlflow.artifacts import download_artifacts

        beside = tracked.artifacts / name
        if beside.is_file():
            return beside
        try:
            return Path(download_artifacts(
                run_id=tracked.run_id, artifact_path=name, tracking_uri=self.uri
            ))  # fmt: skip
        except Exception:
            return None


def _finished(runs: Sequence[Run], state: CellState) -> bool:
    content = content_hash(state.folder)
    return any(
        run.data.tags.get("zbench.content") == content and run.info.status != "RUNNING"
        for run in runs
    )


def owner() -> str:
    """Returns what tells this process from all others: host and process id."""
    return f"{platform.node()}:{os.getpid()}"


def is_alive(name: str) -> bool:
    """Returns whether another process of this host still runs; of other hosts nothing is known."""
    host, _, number = name.rpartition(":")
    if host != platform.node() or not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except OSError:
        return False
    return True


def same_training(runs: Sequence[Run], result: CellResult) -> str | None:
    """Returns the run that already holds this training, if any."""
    training = training_hash(result)
    for run in runs:
        if run.data.tags.get("zbench.training") == training:
            return str(run.info.run_id)
    return None
