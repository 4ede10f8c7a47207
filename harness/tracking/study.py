"""One MLflow run for one study, such as a simulation of `zbench theory`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.records.environment import git_commit, package_versions
from harness.tracking.store import Store, store_errors


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
        store = Store(uri)
        from mlflow.entities import Metric, Param

        client = store.client
        tags = {f"zbench.{key}": value for key, value in package_versions().items()}
        tags |= {"zbench.kind": "theory", "zbench.git_commit": git_commit() or "unknown"}
        experiment_id = store.experiment_id(experiment, runs_dir)
        run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
        try:
            now = int(time.time() * 1000)
            store.log_metrics(run_id, [Metric(k, value, now, 0) for k, value in metrics.items()])
            client.log_batch(run_id, params=[Param(k, str(value)) for k, value in params.items()])
            for path in files:
                client.log_artifact(run_id, str(path))
        except Exception:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return run_id
