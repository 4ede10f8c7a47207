"""The fair part of PEFT's comparison: equal trials and parameters, three seeds, rows held out."""

from __future__ import annotations

from harness.grid.loader import load_grid
from harness.grid.schema import expand
from harness.methods import METHODS


def test_methods_are_at_equal_trials_and_parameters() -> None:
    grid = load_grid("peft-suite-fair")
    base, tuned = grid.blocks
    assert [choice.label for choice in base.methods] == ["base"]
    assert len(tuned.methods) == 8
    assert tuned.seeds == (0, 1, 2)
    assert tuned.tune is not None
    assert tuned.tune.on == "validation"
    assert {len(space["learning_rate"]) for space in tuned.tune.space.values()} == {6}  # type: ignore[arg-type]
    assert tuned.tune.trials == 6
    for choice in tuned.methods:  # the published rate is among those that are tried
        assert choice.train is not None
        assert choice.train.peak_learning_rate in tuned.tune.space[choice.label]["learning_rate"]  # type: ignore[operator]
    counts = {
        cell.method_label: METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
        for cell in expand(grid)
        if cell.train is not None
    }
    assert max(counts.values()) / min(counts.values()) < 1.15
    assert counts["lora"] == 9_175_040


def test_it_trains_and_is_scored_as_the_whole_comparison() -> None:
    fair, whole = load_grid("peft-suite-fair"), load_grid("peft-suite")
    assert fair.data == whole.data
    assert fair.models == whole.models
    assert fair.blocks[0].tasks == whole.blocks[0].tasks
    lora = next(choice for choice in fair.choices if choice.label == "lora")
    same = next(choice for choice in whole.choices if choice.label == "lora-rank32")
    assert (lora.train, lora.options.identity()) == (same.train, same.options.identity())
