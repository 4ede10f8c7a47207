"""One run in MLflow, or one line that says why there is none."""

from __future__ import annotations

import pytest

from harness.errors import TrackingError
from harness.tracking.address import default_uri, resolve_uri
from harness.tracking.study import log_study


def log(uri, tmp_path, files=(), metrics=None) -> str:
    return log_study(
        uri,
        tmp_path,
        experiment="theory",
        name="theory-small",
        params={"size": "small"},
        metrics={"a-b/single/slope": -0.5} if metrics is None else metrics,
        files=files,
    )


def test_a_study_is_one_finished_run_with_its_files(store, tmp_path) -> None:
    from mlflow.tracking import MlflowClient

    table = tmp_path / "slopes.csv"
    table.write_text("slope\n-0.5\n")
    many = {f"metric-{i}": float(i) for i in range(1500)}
    client = MlflowClient(tracking_uri=store)
    first, second = log(store, tmp_path, [table], many), log(store, tmp_path)
    assert first != second
    run = client.get_run(first)
    assert run.info.experiment_id == client.get_experiment_by_name("theory").experiment_id
    assert run.info.status == "FINISHED"
    assert run.data.metrics == many
    assert run.data.params == {"size": "small"}
    assert run.data.tags["zbench.kind"] == "theory"
    assert [file.path for file in client.list_artifacts(first)] == ["slopes.csv"]


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path) -> None:
    (tmp_path / "here").write_text("no database " * 1000)
    with pytest.raises(TrackingError, match="here: is half made or damaged") as caught:
        log(f"sqlite:///{tmp_path / 'here'}", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_option_takes_precedence_over_the_environment_and_the_default(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None, tmp_path, None) == default_uri(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:1")
    assert resolve_uri(None, tmp_path, None) == "http://there:1"
    assert resolve_uri(None, tmp_path, "http://here:1") == "http://here:1"
