"""`zbench theory` from its size to its files, its run and its lines."""

from __future__ import annotations

import json

import pytest

from harness.commands import theory as command
from harness.commands.theory import chosen_size, theory_command
from harness.errors import UsageError
from harness.report import theory
from harness.theory.summary import Study
from tests.fixtures.studies import PLANS


@pytest.fixture
def small_suite(monkeypatch) -> None:
    monkeypatch.setattr(command, "make_suite", lambda size: tuple(PLANS))


def run(tmp_path, *, size: str = "quick", as_json: bool = False, uri: str | None = None) -> int:
    return theory_command(
        size,
        reports_dir=tmp_path / "reports",
        runs_dir=tmp_path / "runs",
        tracking_uri=uri,
        as_json=as_json,
        workers=1,
    )


def runs_of(uri: str) -> dict[str, object]:
    """Returns the runs of the experiment by id."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("theory")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_id: run for run in found}


def test_it_writes_logs_and_tells(small_suite, store, tmp_path, capsys) -> None:
    from mlflow.tracking import MlflowClient

    before = runs_of(store)
    assert run(tmp_path, size="final", uri=store) == 0
    folder = tmp_path / "reports" / "theory"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"index.html", "theory.json", "slopes.md", "slopes.csv", "theory-moving.png"}
    study = Study.from_json((folder / "theory.json").read_text(), place="theory.json")
    assert len(study.identities) == 2
    said = capsys.readouterr().out
    for phrase in ("fixed truth, L' = L + 1", "What may not be read from it", "mixture of experts"):
        assert phrase in said
    (new,) = set(after := runs_of(store)) - set(before)
    row = study.rows[0]
    logged = after[new].data.metrics
    assert logged[f"{row.scenario.name}/{row.quantity}/slope"] == row.slope.value
    artifacts = MlflowClient(tracking_uri=store).list_artifacts(new)
    assert {file.path for file in artifacts} == names


def test_json_stands_alone_on_stdout_and_a_dead_store_is_a_warning(
    small_suite, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(theory, "drawings", lambda study: [])  # five seconds of drawing
    (tmp_path / "file").write_text("no database " * 1000)
    assert run(tmp_path, as_json=True, uri=f"sqlite:///{tmp_path / 'file'}") == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert {entry["quantity"] for entry in record["slopes"]} >= {"single", "over", "voronoi"}
    assert "is half made or damaged (no database); move the file file away" in said.err
    assert "is left out of 'quick'" in said.err
    assert (tmp_path / "reports" / "theory" / "index.html").is_file()


def test_an_unknown_size_does_nothing(tmp_path) -> None:
    with pytest.raises(UsageError, match="no suite is called 'huge'"):
        run(tmp_path, size="huge")
    assert list(tmp_path.iterdir()) == []


def test_the_options_choose_one_size() -> None:
    assert chosen_size(quick=False, full=False) == "final"
    assert chosen_size(quick=True, full=False) == "quick"
    assert chosen_size(quick=False, full=True) == "full"
    with pytest.raises(UsageError, match="exclude each other"):
        chosen_size(quick=True, full=True)
