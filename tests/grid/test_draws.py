"""What was drawn stays as it was in a runs folder, whatever the installed Optuna would draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid import draws
from harness.grid.draws import FOLDER, stored_draws, write_draws
from harness.grid.sampling import History, Settings, draw
from harness.grid.tuning import Range, Space, TuneSpec
from tests.grid.test_trials import opened, run_all, tuning_of
from tests.grid.test_tune_entries import SPACE, grid_of

SPACES = {
    **SPACE,
    "lora": {"targets": [["q_proj"], ["q_proj", "v_proj"]], "rank": [2, 4, 8], "dropout": [0, 0.1]},
}


def reversed_draw(spec: TuneSpec, space: Space, history: History = ()) -> list[Settings]:
    """What another version may draw."""
    return [*reversed(draw(spec, space, history))]


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe"])
def test_kept_draws_are_read_again_and_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    grid = grid_of(sampler=sampler, space=SPACES)
    found = opened(grid, run_all(grid))
    write_draws(found.tunings, tmp_path)
    monkeypatch.setattr(draws, "draw", reversed_draw)
    read = stored_draws(tmp_path)
    for one in found.tunings:
        spec, space = one.spec, one.spec.space[one.choice.label]
        again: list[Settings] = []
        while len(again) < spec.trials:
            history = [(trial.settings, trial.reported(spec)) for trial in one.trials[: len(again)]]
            again += read(spec, space, history)
        assert again == [trial.settings for trial in one.trials]
    other = {"learning_rate": Range(low=1e-4, high=1.0, log=True)}
    assert read(spec, other, ()) == reversed_draw(spec, other)


def test_a_damaged_file_is_drawn_anew(tmp_path: Path) -> None:
    one = tuning_of(opened(grid_of(sampler="random", space=SPACES), {}))
    write_draws([one], tmp_path)
    (path,) = (tmp_path / FOLDER).iterdir()
    whole = path.read_text()
    for text in ("", "[]", "{}", '{"trials": [{}]}', '{"trials": []}', whole.replace("rank", "x")):
        path.write_text(text)
        space = one.spec.space["lora"]
        expected = [trial.settings for trial in one.trials]
        assert stored_draws(tmp_path)(one.spec, space, ()) == expected


def test_trials_that_are_not_drawn_yet_are_not_kept(tmp_path: Path) -> None:
    one = tuning_of(opened(grid_of(sampler="tpe"), {}))
    assert len(one.trials) == 4
    write_draws([one, replace(one, trials=())], tmp_path)
    assert len([*(tmp_path / FOLDER).iterdir()]) == 1
