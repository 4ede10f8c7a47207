"""The cells of a tuning follow from the stored results alone: trials, choice, chosen settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.evaluation.tasks import request_key
from harness.grid.resolver import resolve
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.trials import Unfolded, has_diverged, unfold
from harness.grid.tuned_methods import Trial, TunedMethod
from harness.grid.tuning import FIRST_SEED
from harness.models.advice import ADVICE
from harness.records.results import CellError, CellResult
from tests.grid.test_tune_entries import SPACE, grid_of, raw_grid
from tests.records.test_results import RESULT, SCORE, TRAIN

Results = dict[str, CellResult]


def opened(grid: GridSpec, results: Mapping[str, CellResult]) -> Unfolded:
    return unfold(grid, {}, lambda cell: results.get(cell.id))


def done(cell: Cell, loss: float, accuracy: float = 0.5) -> CellResult:
    """A result of a cell, with a score of each of its tasks."""
    scores = tuple(
        replace(
            SCORE, benchmark=t.name, task=t.name, key=request_key(t), value=accuracy,
            metric=t.benchmark.primary_metric,
        )
        for t in cell.tasks
    )  # fmt: skip
    train = replace(TRAIN, validation_losses=(9.0, loss), epoch_losses=(1.0, 1.0))
    return replace(RESULT, cell_id=cell.id, train=train, scores=scores)


def failed(cell: Cell, message: str) -> CellResult:
    error = CellError("TrainingError", message, "log.txt")
    return replace(RESULT, cell_id=cell.id, train=None, scores=(), error=error)


def tuning_of(found: Unfolded, method: str = "lora") -> TunedMethod:
    return next(one for one in found.tunings if one.choice.label == method)


def run_all(grid: GridSpec, loss: Any = lambda trial: trial.number) -> Results:
    """Runs what is known, round by round, until nothing new comes of it."""
    results: Results = {}
    while True:
        found = opened(grid, results)
        trials = {cell.id: t for one in found.tunings for t in one.trials for cell in t.cells}
        new = [cell for cell in found.cells if cell.id not in results]
        if not new:
            return results
        for cell in new:
            trial = trials.get(cell.id)
            value = 0.0 if trial is None else float(loss(trial))
            results[cell.id] = done(cell, value, accuracy=1 / (10 + value))


def test_the_cells_that_the_grid_names_stay_as_they_were() -> None:
    tuned = grid_of()
    plain = tuned.model_copy(
        update={"blocks": tuple(b.model_copy(update={"tune": None}) for b in tuned.blocks)}
    )
    own = [cell for cell in opened(tuned, {}).cells if cell.tuning is None]
    assert own == expand(plain) == expand(tuned)


def test_trials_and_stand_ins_are_counted_before_anything_runs() -> None:
    found = opened(grid_of({"fractions": [0.1, 0.5]}, seeds=2), {})
    assert len(found.cells) == 1 + 2 * 2 * 2 + 2 * 6 * 2
    for one in found.tunings:
        assert [trial.number for trial in one.trials] == list(range(6))
        assert {cell.fraction for trial in one.trials for cell in trial.cells} == {0.5}
        seeds = {cell.seed for trial in one.trials for cell in trial.cells}
        assert seeds == {FIRST_SEED, FIRST_SEED + 1}
        assert not any(cell.tasks for trial in one.trials for cell in trial.cells)
        assert [cell.label.split("/")[1] for cell in one.waiting] == [
            f"{one.choice.label}[tuned]"
        ] * 4
        assert one.waits_for == "waits for 6 trials"
        assert one.chosen is None


def test_the_settings_of_the_lowest_loss_are_trained_anew_and_scored() -> None:
    grid = grid_of()
    results = run_all(grid, lambda trial: abs(trial.number - 4))
    tuning = tuning_of(opened(grid, results))
    assert tuning.chosen == 4
    assert tuning.trials[4].settings == {"learning_rate": 1e-3, "rank": 4}
    winners = [cell for cell in tuning.cells if cell.tuning and cell.tuning.kind == "winner"]
    assert [cell.label for cell in winners] == [
        f"tiny-llama/lora[tuned]/100%/seed{seed}" for seed in (0, 1)
    ]
    for cell in winners:
        assert cell.train is not None
        assert (cell.train.learning_rate, cell.options.rank) == (1e-3, 4)  # type: ignore[attr-defined]
        assert cell.tasks == grid.blocks[0].tasks
        assert cell.data.validation is not None
        assert cell.tuning is not None
        assert (cell.tuning.of, cell.tuning.number) == ("lora", 4)
    assert not tuning.waiting


def test_nothing_is_chosen_before_every_trial_has_ended() -> None:
    grid = grid_of()
    results = run_all(grid)
    trials = tuning_of(opened(grid, results)).trials
    for missing in trials:
        left = {key: one for key, one in results.items() if key != missing.cells[0].id}
        found = tuning_of(opened(grid, left))
        assert (found.chosen, found.waits_for) == (None, "waits for 1 trial")


def test_failed_trials_are_the_worst_and_are_told() -> None:
    grid = grid_of()
    results = run_all(grid)
    first, second = tuning_of(opened(grid, results)).trials[:2]
    said = f"step 3: the loss is nan; {ADVICE['diverged']}"
    results[first.cells[0].id] = failed(first.cells[0], said)
    found = tuning_of(opened(grid, results))
    assert (found.chosen, found.trials[0].status, found.trials[0].note) == (1, "failed", said)
    assert has_diverged(results[first.cells[0].id])
    for trial in found.trials:
        results[trial.cells[0].id] = failed(trial.cells[0], "no space left")
    found = tuning_of(opened(grid, results))
    assert (found.chosen, found.waits_for) == (None, "no trial was done")
    assert not has_diverged(results[second.cells[0].id])


def test_a_trial_is_the_mean_over_its_seeds() -> None:
    grid = grid_of(seeds=2)
    results = run_all(grid, lambda trial: 1.0)
    one, other = tuning_of(opened(grid, results)).trials[2].cells
    results |= {one.id: done(one, 0.2), other.id: done(other, 1.6)}
    found = tuning_of(opened(grid, results))
    assert found.trials[2].value == pytest.approx(0.9)
    assert found.chosen == 2
    results[other.id] = failed(other, "no space left")
    assert tuning_of(opened(grid, results)).chosen == 0


@pytest.mark.parametrize("on", ["validation", "demo_hellaswag"])
def test_scores_of_the_study_change_no_choice(on: str) -> None:
    grid = grid_of(on=on, sampler="tpe", batch=2)
    results = run_all(grid, lambda trial: (trial.number * 5) % 6)
    own = grid.blocks[0].tune
    assert own is not None
    kept = {task.name for task in own.tasks}
    names = {score.benchmark for result in results.values() for score in result.scores}
    assert names - kept == {"demo_arc_easy", "demo_mmlu"}
    changed = {
        key: replace(
            result,
            scores=tuple(
                replace(s, value=1 - s.value / (2 + n)) if s.benchmark not in kept else s
                for n, s in enumerate(result.scores)
            ),
        )
        for key, result in results.items()
    }
    before, after = opened(grid, results), opened(grid, changed)
    assert [one.chosen for one in before.tunings] == [0, 0]
    assert [one.chosen for one in after.tunings] == [0, 0]
    assert after.cells == before.cells


def test_a_benchmark_of_its_own_is_scored_by_the_trials_alone_and_its_direction_counts() -> None:
    grid = grid_of(on={"benchmark": "demo_hellaswag", "limit": 5})
    found = opened(grid, {})
    for cell in found.cells:
        is_trial = cell.tuning is not None
        assert ("demo_hellaswag" in {task.name for task in cell.tasks}) == is_trial
    results = {
        cell.id: done(cell, 0.0, accuracy=cell.tuning.number / 10 if cell.tuning else 0.0)
        for cell in found.cells
    }
    assert [one.chosen for one in opened(grid, results).tunings] == [5, 5]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_the_order_in_which_trials_end_changes_nothing(sampler: str) -> None:
    grid = grid_of(sampler=sampler, batch=2)

    def loss(trial: Trial) -> float:
        rate = trial.settings["learning_rate"]
        return abs(rate - 7e-4) + trial.settings.get("rank", 0)

    whole = run_all(grid, loss)
    found, results = opened(grid, whole), Results()
    for _ in range(200):  # one cell after the other, the last known first
        todo = [cell for cell in opened(grid, results).cells if cell.id not in results]
        if not todo:
            break
        results[todo[-1].id] = whole[todo[-1].id]
    assert opened(grid, results) == found
    assert len(results) == len(found.cells)


def test_tpe_asks_round_by_round() -> None:
    grid = grid_of(sampler="tpe", batch=4)
    found = tuning_of(opened(grid, {}))
    assert len(found.trials) == 4
    waiting = [cell.method_label for cell in found.waiting]
    assert waiting == ["lora[trial-4]", "lora[trial-5]", "lora[tuned]", "lora[tuned]"]
    ended = {cell.id: done(cell, 1.0) for trial in found.trials[:3] for cell in trial.cells}
    assert len(tuning_of(opened(grid, ended)).trials) == 4
    ended |= {cell.id: done(cell, 1.0) for cell in found.trials[3].cells}
    again = tuning_of(opened(grid, ended))
    assert len(again.trials) == 6
    assert [t.settings for t in again.trials[:4]] == [t.settings for t in found.trials]


def test_what_is_chosen_may_be_the_published_recipe_and_is_trained_once() -> None:
    space = {**SPACE, "lora": {"learning_rate": [1e-5, 3e-4], "rank": [4, 8]}}
    grid = grid_of(trials=4, space=space)
    results = run_all(grid, lambda trial: -trial.number)
    found = opened(grid, results)
    tuning = tuning_of(found)
    assert tuning.chosen == 3  # rate 3e-4 and rank 8 are those of Alpaca-LoRA
    assert tuning.keeps_recipe
    assert len({cell.id for cell in found.cells}) == len(found.cells)
    (cell,) = [cell for cell in found.cells if cell.label == "tiny-llama/lora/100%/seed0"]
    assert cell.tuning is None
    listed = [(one.label, one.tuning and one.tuning.kind, one.id) for one in cell.listings]
    assert listed == [
        ("tiny-llama/lora/100%/seed0", None, cell.id),
        ("tiny-llama/lora[tuned]/100%/seed0", "winner", cell.id),
    ]


def test_a_pruner_lets_trials_advance_together_and_stops_the_worse_ones() -> None:
    grid = grid_of(pruner="median")
    train = grid.blocks[0].methods[1].train
    assert train is not None
    assert train.epochs == 2
    trials = tuning_of(opened(grid, {})).trials
    ids = [trial.cells[0].id for trial in trials]
    losses = dict(zip(ids, (4.0, 1.0, 6.0, 3.0, 5.0, 2.0), strict=True))

    def seen(known: Mapping[str, float], results: Results) -> TunedMethod:
        found = unfold(
            grid, {}, lambda c: results.get(c.id), lambda c: [known[c.id]] if c.id in known else []
        )
        return tuning_of(found)

    first = seen({}, {})
    assert first.pauses == dict.fromkeys(ids, 1)
    assert not any(trial.holds for trial in first.trials)
    part = seen({ids[0]: losses[ids[0]]}, {})
    assert [trial.holds for trial in part.trials] == [True, *[False] * 5]
    assert not part.pruned
    after = seen(losses, {})
    assert [trial.number for trial in after.trials if trial.status == "pruned"] == [0, 2, 4]
    assert set(after.pruned.values()) == {"stopped after epoch 1 of 2 by the median pruner"}
    assert (after.pauses, after.waits_for) == ({}, "waits for 3 trials")
    results = {}
    for trial in after.trials:
        curve = (losses[trial.cells[0].id], 0.5 if trial.number == 5 else 0.9)
        whole = done(trial.cells[0], curve[1])
        kept = replace(TRAIN, validation_losses=curve, epoch_losses=(1.0, 1.0))
        results[trial.cells[0].id] = replace(whole, train=kept)
    left = {key: one for key, one in results.items() if key not in after.pruned}
    assert seen(losses, left).chosen == 5
    assert seen({}, results).trials == seen(losses, results).trials  # what is stopped stays so
    assert seen({}, results).chosen == 5


def test_the_recipes_rate_is_known_where_it_is_stated_for_a_batch_of_256() -> None:
    (one,) = (t for t in opened(grid_of(), {}).tunings if t.choice.label == "zero-init-linear")
    assert one.choice.train is not None
    assert one.choice.train.learning_rate is None
    assert one.published == {"learning_rate": 0.009 * 8 / 256}


@pytest.mark.parametrize("on", ["validation", "demo_hellaswag"])
def test_the_loss_of_a_stopped_trial_is_never_told_as_a_benchmarks_score(on: str) -> None:
    tune = grid_of(on=on).blocks[0].tune
    assert tune is not None
    stopped = Trial(0, {}, {FIRST_SEED: None}, "pruned", (), losses=(3.0, 2.5))
    assert stopped.reported(tune) == (2.5 if on == "validation" else None)
    ended = Trial(0, {}, {FIRST_SEED: 0.25}, "done", (), losses=(3.0, 2.5))
    assert ended.reported(tune) == 0.25


@pytest.mark.parametrize("wrong", [{"epochs": 1}, {"max_steps": 3}])
def test_a_pruner_needs_epochs_to_decide_after(wrong: dict[str, int]) -> None:
    raw = raw_grid(pruner={"percentile": 25})
    raw["train"] = wrong
    found = resolve(raw, place="g.yaml").faults
    assert len(found) == 2
    assert all(one.startswith("g.yaml: blocks[0].tune.pruner: ") for one in found)
