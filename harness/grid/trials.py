"""The cells of a tuning: its trials, and the chosen settings once all trials have ended.

What is chosen follows from the stored results alone: the same results give the same trials, choice
and cells, whoever asks, and whatever was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from harness.errors import StorageError
from harness.grid.cells import TuningRole
from harness.grid.choosing import choose, validation_value
from harness.grid.folders import cell_folders
from harness.grid.retuning import retuned, value_of
from harness.grid.sampling import draw_round, draw_trials
from harness.grid.schema import Block, Cell, GridSpec, MethodChoice, add_cell, cell_of, expand
from harness.grid.tuning import TuneSpec
from harness.models.advice import ADVICE
from harness.records.results import CellResult, read_result

Read = Callable[[Cell], CellResult | None]
"""Gives a cell's stored result; None where there is none that can be read."""
TrialStatus = Literal["done", "failed", "pruned", "to do"]


@dataclass(frozen=True)
class Trial:
    """One setting that is tried."""

    number: int
    """From 0, in the order in which the sampler drew them."""
    settings: Mapping[str, Any]
    """The values of what is tuned, by name."""
    cells: tuple[Cell, ...]
    """One for each seed."""
    values: Mapping[int, float | None]
    """The validation score of each seed: a loss in nats per label token, or a benchmark's metric;
    None where that training is not done, or failed."""
    status: TrialStatus
    """`failed`: one of its trainings failed or diverged, so that it counts as the worst."""
    seconds: float | None = None
    """What its trainings took together; None until all of them have ended."""
    note: str | None = None
    """Why it failed, in one line."""

    @property
    def value(self) -> float | None:
        """The mean over the seeds; None unless all of them are done."""
        known = [value for value in self.values.values() if value is not None]
        if self.status != "done" or len(known) < len(self.values):
            return None
        return math.fsum(known) / len(known)


@dataclass(frozen=True)
class TunedMethod:
    """The tuning of one method on one model and data set, as far as it is."""

    model: str
    choice: MethodChoice
    """The method at its published recipe."""
    block: Block
    trials: tuple[Trial, ...]
    """Those that are known so far."""
    chosen: int | None
    """Number of the trial whose settings were chosen; None until all trials have ended, and where
    every one of them failed."""
    cells: tuple[Cell, ...]
    """Those of the trials, and of the chosen settings once they are known."""
    waiting: tuple[Cell, ...]
    """Stand-ins, with the settings of the published recipe, for the cells that are not known
    yet."""

    @property
    def spec(self) -> TuneSpec:
        """The block's `tune`."""
        assert self.block.tune is not None
        return self.block.tune

    @property
    def published(self) -> dict[str, Any]:
        """What the published recipe has in the place of what is tuned, as far as it states it."""
        names = self.spec.space[self.choice.label]
        found = {name: value_of(self.choice, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def keeps_recipe(self) -> bool:
        """Whether the settings that were chosen are those of the published recipe."""
        if self.chosen is None:
            return False
        made = retuned(self.choice, self.trials[self.chosen].settings)
        return (made.options.identity(), made.train) == (
            self.choice.options.identity(),
            self.choice.train,
        )

    @property
    def num_ended(self) -> int:
        """Trials that are done or have failed."""
        return sum(trial.status != "to do" for trial in self.trials)

    @property
    def has_ended(self) -> bool:
        """Whether every trial has."""
        return self.num_ended == self.spec.trials

    @property
    def label(self) -> str:
        """Model, method and data set, as in the labels of its cells."""
        data = self.block.data
        return f"{self.model}/{self.choice.label}" + ("" if data is None else f"@{data}")

    @property
    def waits_for(self) -> str:
        """What the cells that are not known yet wait for."""
        if self.has_ended:
            return "no trial was done"
        left = self.spec.trials - self.num_ended
        return f"waits for {left} trial{'s' * (left > 1)}"


@dataclass(frozen=True)
class Unfolded:
    """A grid's cells, with what they follow from."""

    cells: list[Cell]
    """Each once; see `add_cell`."""
    tunings: tuple[TunedMethod, ...]


def unfold(grid: GridSpec, contents: Mapping[str | None, str], read: Read) -> Unfolded:
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
                tunings.append(_tuned(cells_of, read))
    for tuning in tunings:
        for cell in tuning.cells:
            add_cell(cells, cell)
    return Unfolded(list(cells.values()), tuple(tunings))


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


def _tuned(make: _CellMaker, read: Read) -> TunedMethod:
    trials = tuple(_trials(make, read))
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


def _trials(make: _CellMaker, read: Read) -> Iterator[Trial]:
    """The trials that are known: all of them, but with tpe those of the rounds that have begun."""
    spec, space = make.tune, make.tune.space[make.choice.label]
    if spec.sampler != "tpe":
        for number, settings in enumerate(draw_trials(spec, space)):
            yield _trial(make, number, settings, read)
        return
    found: list[Trial] = []
    while len(found) < spec.trials and all(trial.status != "to do" for trial in found):
        history = [(trial.settings, trial.value) for trial in found]
        for settings in draw_round(spec, space, history):
            found.append(_trial(make, len(found), settings, read))
            yield found[-1]


def _trial(make: _CellMaker, number: int, settings: Mapping[str, Any], read: Read) -> Trial:
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
    return Trial(number, settings, cells, values, status, took, faults[0] if faults else None)


def stored_results(runs_dir: Path) -> Read:
    """Reads the results of a runs folder; one that is damaged is none."""
    folders = cell_folders(runs_dir)

    def read(cell: Cell) -> CellResult | None:
        try:
            return read_result(folder, cell.id) if (folder := folders.get(cell.id)) else None
        except StorageError:  # told where the cell's state is read
            return None

    return cache(read)


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
