"""Optuna reads the studies that are written, and finds the best trial that was chosen here."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna import get_all_study_names, load_study
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from harness.errors import StorageError
from harness.tracking.trials import studies_file, write_studies
from tests.grid.test_trials import opened, run_all
from tests.grid.test_tune_entries import SPACE, grid_of


@pytest.mark.parametrize("on", ["validation", "demo_hellaswag"])
def test_the_studies_hold_every_trial(tmp_path: Path, on: str) -> None:
    space = {**SPACE, "lora": {"targets": [["q_proj"], ["q_proj", "v_proj"]], "rank": [2, 4, 8]}}
    grid = grid_of(on=on, space=space)
    found = opened(grid, run_all(grid, lambda trial: abs(trial.number - 2)))
    for _ in range(2):  # the second replaces the first
        assert write_studies("a grid", found.tunings, tmp_path) == studies_file(tmp_path, "a grid")
    storage = JournalStorage(JournalFileBackend(str(studies_file(tmp_path, "a grid"))))
    assert sorted(get_all_study_names(storage)) == [one.label for one in found.tunings]
    for one in found.tunings:
        study = load_study(study_name=one.label, storage=storage)
        assert [trial.value for trial in study.trials] == [trial.value for trial in one.trials]
        assert study.best_value == one.trials[one.chosen or 0].value
        assert study.user_attrs["chosen trial"] == one.chosen
        assert study.trials[0].user_attrs["cells"] == [one.trials[0].cells[0].id]
    targets = load_study(study_name="tiny-llama/lora", storage=storage).trials[0].params["targets"]
    assert targets == '["q_proj"]'
    assert [path.name for path in (tmp_path / "tuning").iterdir()] == ["a-grid.log"]


def test_trials_that_are_to_do_wait(tmp_path: Path) -> None:
    tunings = opened(grid_of(), {}).tunings
    path = write_studies("g", tunings, tmp_path)
    study = load_study(
        study_name=tunings[0].label, storage=JournalStorage(JournalFileBackend(str(path)))
    )
    assert {trial.state.name for trial in study.trials} == {"WAITING"}


def test_nothing_is_written_without_a_tuning_nor_in_the_place_of_a_file(tmp_path: Path) -> None:
    assert write_studies("g", (), tmp_path) is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "tuning").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        write_studies("g", opened(grid_of(), {}).tunings, tmp_path)
