"""One MLflow run for one study."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.records.environment import git_commit, package_versions
from harness.tracking.runs import ENVIRONMENT, MAX_BATCH
from harness.tracking.uri import default_uri, tracking_error


def study_uri(runs_dir: Path, option: str | None) -> str:
    """Returns the URI of the option, else of MLFLOW_TRACKING_URI, or the default of `runs_dir`."""
    return option or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(runs_dir)


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
    """Logs a finished run and returns its id.

    Args:
        uri: of the store; a local SQLite file is made where there is none.
        runs_dir: holds the artifacts of a local store.
        experiment: is made where there is none.
        name: of the run.
        params: what was asked for.
        metrics: what was found.
        files: go to the run's artifacts.

    Raises:
        TrackingError: the store cannot be reached, or refuses.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        return _log(uri, runs_dir, experiment, name, params, metrics, files)
    except Exception as fault:
        raise tracking_error(uri, fault) from fault


def _log(
    uri: str,
    runs_dir: Path,
    experiment: str,
    name: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    files: Sequence[Path],
) -> str:
    import logging
    import time

    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    is_local = uri.startswith("sqlite:")
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        place = (runs_dir / "artifacts").resolve().as_uri() if is_local else None
        experiment_id = str(client.create_experiment(experiment, artifact_location=place))
    else:
        experiment_id = str(found.experiment_id)
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    tags = {f"zbench.{key}": value for key, value in package_versions().items()}
    tags |= {"zbench.kind": "theory", "zbench.git_commit": git_commit() or "unknown"}
    run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
    try:
        now = int(time.time() * 1000)
        listed = [Metric(key, value, now, 0) for key, value in metrics.items()]
        for start in range(0, len(listed), MAX_BATCH):
            client.log_batch(run_id, metrics=listed[start : start + MAX_BATCH])
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        for path in files:
            client.log_artifact(run_id, str(path))
    except Exception:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return run_id
