"""One MLflow run for one study, such as a simulation of `zbench theory`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.records.environment import git_commit, package_versions
from harness.tracking.faults import store_errors
from harness.tracking.lock import turn
from harness.tracking.store import Store


def log_study(
    uri: str,
    runs_dir: Path,
    *,
    experiment: str,
    name: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    files: Sequence[Path],
) -> str:
    """Logs a finished run of an experiment, which is made where there is none; returns its id.

    `runs_dir` holds the artifacts, copies of `files`, of a local store.

    Raises:
        TrackingError: the store cannot be reached, or refuses.
    """
    with store_errors(uri):
        runs_dir.mkdir(parents=True, exist_ok=True)
        with turn(runs_dir):
            store = Store(uri, runs_dir)
        from mlflow.entities import Metric, Param

        client = store.client
        tags = {f"zbench.{key}": value for key, value in package_versions().items()}
        tags |= {"zbench.kind": "theory", "zbench.git_commit": git_commit() or "unknown"}
        run_id = store.create_run(store.experiment_id(experiment), name, tags)
        try:
            now = int(time.time() * 1000)
            store.log_metrics(run_id, [Metric(k, value, now, 0) for k, value in metrics.items()])
            client.log_batch(run_id, params=[Param(k, str(value)) for k, value in params.items()])
            store.log_files(run_id, {path.name: path for path in files})
        except Exception:  # whatever stops it, the run is ended; raised again
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return run_id
