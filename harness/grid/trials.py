"""The cells of a tuning: its trials, and the chosen settings once all trials have ended.

What is chosen follows from the stored results alone: the same results give the same trials, choice
and cells, whoever asks, and whatever was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Literal

from harness.errors import StorageError
from harness.grid.cells import TuningRole
from harness.grid.choosing import choose, validation_value
from harness.grid.draws import Draw, stored_draws
from harness.grid.folders import CHECKPOINTS_FOLDER, Runs, cell_folders
from harness.grid.method_settings import retuned
from harness.grid.pruning import prune
from harness.grid.sampling import draw
from harness.grid.schema import Block, Cell, GridSpec, MethodChoice, add_cell, cell_of, expand
from harness.grid.tuned_methods import Trial, TrialStatus, TunedMethod
from harness.grid.tuning import Percentile, TuneSpec
from harness.models.advice import ADVICE
from harness.records.checkpoints import validation_losses
from harness.records.results import CellResult, read_result

Read = Callable[[Cell], CellResult | None]
"""Gives a cell's stored result; None where there is none that can be read."""
Losses = Callable[[Cell], Sequence[float]]
"""Gives the validation losses after each epoch of a training that is not finished."""


@dataclass(frozen=True)
class Unfolded:
    """A grid's cells, with what they follow from."""

    cells: list[Cell]
    """Each once; see `add_cell`."""
    tunings: tuple[TunedMethod, ...]


def unfold(
    grid: GridSpec,
    contents: Mapping[str | None, str],
    read: Read,
    losses: Losses = lambda _cell: (),
    drawn: Draw = draw,
) -> Unfolded:
    """All cells of a grid that the stored results let know: those that it names, the trials of its
    tunings, and the chosen settings where all trials have ended."""
    cells = {cell.id: cell for cell in expand(grid, contents)}
    tunings = []
    for block in grid.blocks:
        if block.tune is None:
            continue
        for model, choice in product(block.models, block.methods):
            if choice.train is not None:
                cells_of = _CellMaker(grid, block, model, choice, contents.get(block.data))
                tunings.append(_tuned(cells_of, read, losses, drawn))
    for tuning in tunings:
        for cell in tuning.cells:
            add_cell(cells, cell)
    return Unfolded(list(cells.values()), tuple(tunings))


def unfold_stored(grid: GridSpec, contents: Mapping[str | None, str], runs: Runs) -> Unfolded:
    """All cells of a grid that the results of the runs folders let know."""
    read, losses = stored_results(runs), unfinished_losses(runs)
    return unfold(grid, contents, read, losses, stored_draws(runs))


@dataclass(frozen=True)
class _CellMaker:
    """Makes the cells of one tuning."""

    grid: GridSpec
    block: Block
    model: str
    choice: MethodChoice
    content: str | None

    @property
    def tune(self) -> TuneSpec:
        assert self.block.tune is not None
        return self.block.tune

    def trial(self, number: int, settings: Mapping[str, Any]) -> tuple[Cell, ...]:
        """The cells of a trial, one for each of its seeds."""
        return tuple(
            self._cell("trial", number, settings, max(self.block.fractions), seed)
            for seed in self.tune.trial_seeds
        )

    def winners(self, number: int, settings: Mapping[str, Any]) -> tuple[Cell, ...]:
        """The cells of the chosen settings: the block's fractions and seeds."""
        return tuple(
            self._cell("winner", number, settings, fraction, seed)
            for fraction, seed in product(self.block.fractions, self.block.seeds)
        )

    def _cell(
        self, kind: Literal["trial", "winner"], number: int, settings: Mapping[str, Any],
        fraction: float, seed: int,
    ) -> Cell:  # fmt: skip
        name = f"trial-{number}" if kind == "trial" else "tuned"
        choice = retuned(self.choice, settings, f"{self.choice.label}[{name}]")
        role = TuningRole(kind=kind, of=self.choice.label, number=number)
        return cell_of(
            self.grid,
            self.model,
            choice,
            data=self.block.data,
            fraction=fraction,
            seed=seed,
            tasks=self.tune.tasks if kind == "trial" else self.block.tasks,
            gpus_per_cell=self.block.gpus_per_cell,
            data_sha256=self.content,
            fixed=self.block.fixed(seed) if kind == "winner" else None,
        ).model_copy(update={"tuning": role})


def _tuned(make: _CellMaker, read: Read, losses: Losses, drawn: Draw) -> TunedMethod:
    trials = tuple(_trials(make, read, losses, drawn))
    cells = [cell for trial in trials for cell in trial.cells]
    waiting = [
        cell for number in range(len(trials), make.tune.trials) for cell in make.trial(number, {})
    ]
    chosen = None
    if len(trials) == make.tune.trials and all(trial.status != "to do" for trial in trials):
        values = {trial.number: trial.value for trial in trials}
        chosen = choose(values, lower_is_better=make.tune.lower_is_better)
    if chosen is None:
        waiting += make.winners(0, {})
    else:
        cells += make.winners(chosen, trials[chosen].settings)
    return TunedMethod(
        make.model, make.choice, make.block, trials, chosen, tuple(cells), tuple(waiting)
    )


def _trials(make: _CellMaker, read: Read, losses: Losses, drawn: Draw) -> list[Trial]:
    """The trials that are known: all of them, but with tpe those of the rounds that have begun."""
    spec, space = make.tune, make.tune.space[make.choice.label]

    def a_round(first: int, settings: Sequence[Mapping[str, Any]]) -> list[Trial]:
        made = [_trial(make, first + n, one, read, losses) for n, one in enumerate(settings)]
        return made if spec.pruner is None else _pruned(make, spec.pruner, made)

    found: list[Trial] = []
    while len(found) < spec.trials and all(trial.status != "to do" for trial in found):
        history = [(trial.settings, trial.reported(spec)) for trial in found]
        found += a_round(len(found), drawn(spec, space, history))
    return found


def _pruned(make: _CellMaker, pruner: Percentile, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of a round with what the pruner made of them."""
    assert make.choice.train is not None
    num_epochs = make.choice.train.epochs
    assert num_epochs is not None  # see tune_checks
    found = prune(
        pruner,
        {trial.number: trial.losses for trial in trials},
        [trial.number for trial in trials if trial.status == "failed"],
        num_epochs,
    )
    named = {
        number: f"stopped after epoch {epoch} of {num_epochs} by the {make.tune.pruner_words}"
        for number, epoch in found.stopped.items()
    }
    return [
        replace(
            trial,
            status="pruned",
            note=named[trial.number],
            losses=trial.losses[: found.stopped[trial.number]],
        )
        if trial.number in named
        else replace(trial, until=found.until)
        for trial in trials
    ]


def _mean_curve(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean over seeds after each epoch that all of them have come to."""
    return tuple(math.fsum(each) / len(curves) for each in zip(*curves, strict=False))


def _trial(
    make: _CellMaker, number: int, settings: Mapping[str, Any], read: Read, losses: Losses
) -> Trial:
    cells = make.trial(number, settings)
    values: dict[int, float | None] = {}
    faults: list[str] = []
    results = [read(cell) for cell in cells]
    seconds = [one.train.seconds if one is not None and one.train else None for one in results]
    ended = 0
    for cell, result in zip(cells, results, strict=True):
        assert cell.seed is not None
        value = None if result is None else validation_value(result, make.tune.on)
        values[cell.seed] = value
        fault = result.error.message if result is not None and result.error is not None else None
        ended += value is not None or fault is not None
        if value is None and fault is not None:
            faults.append(fault)
    status: TrialStatus = "to do"
    if ended == len(cells):
        status = "failed" if faults else "done"
    known = [one for one in seconds if one is not None]
    took = math.fsum(known) if len(known) == len(cells) else None
    curves = [
        losses(cell) if one is None or one.train is None else one.train.validation_losses
        for cell, one in zip(cells, results, strict=True)
        if make.tune.pruner is not None
    ]
    note = faults[0] if faults else None
    return Trial(number, settings, values, status, cells, took, note, _mean_curve(curves))


def stored_results(runs: Runs) -> Read:
    """Reads the results of the runs folders; one that is damaged is none."""
    folders = cache(lambda: cell_folders(runs))  # asked by a grid with tunings alone

    @cache  # by its id: a cell with options of PEFT has no hash
    def read(cell_id: str) -> CellResult | None:
        folder = folders().get(cell_id)
        try:
            return None if folder is None else read_result(folder, cell_id)
        except StorageError:  # told where the cell's state is read
            return None

    return lambda cell: read(cell.id)


def unfinished_losses(runs: Runs) -> Losses:
    """Reads how far the unfinished trainings of the runs folders are."""
    folders = cache(lambda: cell_folders(runs))

    def read(cell: Cell) -> Sequence[float]:
        folder = folders().get(cell.id)
        return () if folder is None else validation_losses(folder / CHECKPOINTS_FOLDER)

    return read


def has_diverged(result: CellResult | None) -> bool:
    """Whether a training ended with a loss that is no number: it would do so again."""
    error = result.error if result is not None else None
    return (
        error is not None and error.type == "TrainingError" and ADVICE["diverged"] in error.message
    )


def settled_trials(tunings: Sequence[TunedMethod], read: Read) -> frozenset[str]:
    """Ids of the cells of trials that diverged, which is their outcome: nothing is left to do."""
    cells = (cell for one in tunings for trial in one.trials for cell in trial.cells)
    return frozenset(cell.id for cell in cells if has_diverged(read(cell)))
