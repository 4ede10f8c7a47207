"""A grid runs round by round until nothing new comes of it, whatever its trials end with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import yaml
from rich.console import Console

from harness.cell.settings import RunSettings
from harness.commands.rounds import is_done, is_submitted, run_rounds
from harness.execution.local import LocalExecutor
from harness.execution.plan import RunPlan
from harness.execution.run_grid import GridOutcome
from harness.grid.folders import CHECKPOINTS_FOLDER, cell_folder
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid, open_grid
from harness.models.advice import ADVICE
from harness.records.checkpoints import RECORD_FILE
from harness.records.events import CellEnded, CellQueued, Event
from harness.records.files import sha256_of_json
from harness.records.results import CellResult, write_result
from harness.tracking.trackers import Trackers
from tests.grid.test_trials import done, failed
from tests.grid.test_tune_entries import raw_grid

DIVERGED = f"step 1: the loss is nan; {ADVICE['diverged']}"
Outcome = Callable[[Cell], CellResult]


def number_of(cell: Cell) -> int:
    return -1 if cell.tuning is None or cell.tuning.kind == "winner" else cell.tuning.number


def lowest_last(cell: Cell) -> CellResult:
    return done(cell, 1.0 - number_of(cell) / 10)


class Workers(LocalExecutor):
    """An executor that trains nothing: what each cell gives is said before."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome, self.rounds = outcome, list[list[str]]()

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        if states:
            self.rounds.append(sorted(state.cell.label.split("/")[1] for state in states))
        for state in states:
            cell, runs_dir = state.cell, plan.settings.runs_dir
            folder = cell_folder(runs_dir, cell)
            result = self.outcome(cell)
            if (epochs := plan.settings.pauses.get(cell.id)) is not None and result.train:
                pause(folder, result.train.validation_losses[:epochs])
                yield CellEnded(cell.id, str(folder), 0.1, paused=True)
                continue
            write_result(folder, replace(result, cell=cell.record()))
            error = result.error.message if result.error else None
            yield CellEnded(cell.id, str(folder), 0.1, error)


def pause(folder: Path, losses: Sequence[float]) -> None:
    """Writes what a checkpoint after some epochs says of itself."""
    content = {"progress": {"validation_losses": list(losses)}}
    checkpoint = folder / CHECKPOINTS_FOLDER / f"step-{len(losses):08d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    record = {"sha256": sha256_of_json(content), "content": content}
    (checkpoint / RECORD_FILE).write_text(json.dumps(record))


def opened(folder: Path, only: str | None = None, **tune: object) -> OpenGrid:
    raw = raw_grid(seeds=1, **{"trials": 3, **tune})
    raw["blocks"][0] |= {"methods": ["base", "lora"], "seeds": [0]}
    rates = {"learning_rate": [1e-4, 1e-3, 1e-2]}
    raw["blocks"][0]["tune"]["space"] = {"lora": rates}
    (folder / "g.yaml").write_text(yaml.safe_dump(raw))
    return open_grid(str(folder / "g.yaml"), folder / "runs", None, only)


def run(grid: OpenGrid, workers: Workers) -> tuple[OpenGrid, GridOutcome, str]:
    plan = RunPlan(RunSettings(runs_dir=grid.runs_dir, data_root=None), ("cpu",))
    screen = Console(file=StringIO(), width=200)
    after, outcome = run_rounds(grid, plan, screen, Trackers(None), workers)
    assert isinstance(screen.file, StringIO)
    return after, outcome, screen.file.getvalue()


TRIALS = ["lora[trial-0]", "lora[trial-1]", "lora[trial-2]"]


def test_trials_come_first_and_then_what_they_chose(tmp_path: Path) -> None:
    workers = Workers(lowest_last)
    after, outcome, told = run(opened(tmp_path), workers)
    assert workers.rounds == [["base", "lora", *TRIALS], ["lora[tuned]"]]
    assert "tiny-llama/lora: trial 2 of 3 chosen on validation loss: learning_rate 0.01" in told
    assert (len(outcome.done), outcome.failed, outcome.skipped) == (6, (), ())
    assert is_done(after)
    assert [cell.label for cell in after.cells][-1] == "tiny-llama/lora[tuned]/100%/seed0"
    again, outcome, _ = run(opened(tmp_path), workers)
    assert len(workers.rounds) == 2
    assert (outcome.done, is_done(again)) == ((), True)


def test_a_trial_that_diverged_is_tried_once_and_one_that_failed_again(tmp_path: Path) -> None:
    said = {0: DIVERGED, 2: "no space left"}

    def outcome_of(cell: Cell) -> CellResult:
        number = number_of(cell)
        return failed(cell, said[number]) if number in said else lowest_last(cell)

    workers = Workers(outcome_of)
    after, outcome, told = run(opened(tmp_path), workers)
    assert workers.rounds == [["base", "lora", *TRIALS], ["lora[tuned]"]]
    assert len(outcome.failed) == 2
    assert "trial 1 of 3 chosen" in told
    assert "2 failed and count as the worst" in told
    assert not is_done(after)  # one of them may be done yet
    del said[2]
    after, _, told = run(opened(tmp_path), workers)
    assert workers.rounds[2:] == [["lora[trial-2]"], ["lora[tuned]"]]
    assert "trial 2 of 3 chosen" in told
    assert is_done(after)


def test_where_every_trial_failed_nothing_is_chosen_nor_done(tmp_path: Path) -> None:
    workers = Workers(
        lambda cell: failed(cell, DIVERGED) if number_of(cell) >= 0 else lowest_last(cell),
    )
    after, _, _ = run(opened(tmp_path), workers)
    assert len(workers.rounds) == 1
    assert not is_done(after)
    assert {waits for _, waits in after.waiting} == {"no trial was done"}


def test_tpe_has_a_round_for_each_batch(tmp_path: Path) -> None:
    workers = Workers(lowest_last)
    after, _, _ = run(opened(tmp_path, sampler="tpe", batch=1), workers)
    assert workers.rounds == [["base", "lora", "lora[trial-0]"], ["lora[trial-1]"],
                              ["lora[trial-2]"], ["lora[tuned]"]]  # fmt: skip
    assert is_done(after)


def test_with_a_pruner_trials_advance_together(tmp_path: Path) -> None:
    def outcome_of(cell: Cell) -> CellResult:
        result = lowest_last(cell)
        assert result.train is not None or cell.train is None
        if result.train is None or number_of(cell) < 0:
            return result
        losses = (3.0 - number_of(cell), 1.0)
        return replace(result, train=replace(result.train, validation_losses=losses))

    workers = Workers(outcome_of)
    after, outcome, told = run(opened(tmp_path, pruner="median"), workers)
    assert workers.rounds == [["base", "lora", *TRIALS], TRIALS[1:], ["lora[tuned]"]]
    assert "1 stopped early by the median pruner" in told
    states = {state.cell.label.split("/")[1]: state.status for state in after.states}
    assert states["lora[trial-0]"] == "pruned"
    assert outcome.skipped == tuple(after.tunings[0].pruned)
    assert is_done(after)


def test_trials_that_wait_for_submitted_ones_are_not_left_behind(tmp_path: Path) -> None:
    """Two trials have paused while the job of the third is in the queue."""

    class Jobs(Workers):
        def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
            queued = [state for state in states if state.cell.label.endswith(self.last)]
            yield from super().run([one for one in states if one not in queued], plan)
            for state in queued:
                yield CellQueued(state.cell.id, "7_0")

        last = ""

    def outcome_of(cell: Cell) -> CellResult:
        result = lowest_last(cell)
        if result.train is None or number_of(cell) < 0:
            return result
        losses = (3.0 - number_of(cell), 1.0)
        return replace(result, train=replace(result.train, validation_losses=losses))

    jobs = Jobs(outcome_of)
    labels = [state.cell.label for state in opened(tmp_path, pruner="median").states]
    (jobs.last,) = (label for label in labels if "[trial-2]" in label)
    after, outcome, _ = run(opened(tmp_path, pruner="median"), jobs)
    assert len(outcome.submitted) == 1
    assert [one.status for one in after.states].count("to do") == 3  # two have paused
    assert is_submitted(after, outcome)
    assert not is_done(after)
    assert not is_submitted(after, GridOutcome(done=(), failed=(), skipped=()))


def test_a_selection_runs_no_more_than_it_names(tmp_path: Path) -> None:
    workers = Workers(lowest_last)
    run(opened(tmp_path, only="lora[trial"), workers)
    assert workers.rounds == [TRIALS]
    after, _, _ = run(opened(tmp_path, only="tuned"), workers)
    assert workers.rounds[1:] == [["lora[tuned]"]]
    assert is_done(after)


def test_a_failed_trial_is_not_tried_twice_in_a_run(tmp_path: Path) -> None:
    workers = Workers(
        lambda cell: failed(cell, "no space left") if number_of(cell) == 0 else lowest_last(cell),
    )
    after, outcome, _ = run(opened(tmp_path, pruner="median"), workers)
    names = [name for names in workers.rounds for name in names]
    assert names.count("lora[trial-0]") == 1
    assert len(outcome.failed) == 1
    assert not is_done(after)
