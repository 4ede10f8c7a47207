"""A tuned method, as far as its tuning is: the trials, their outcomes, and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.grid.method_settings import retuned, value_of
from harness.grid.schema import Block, Cell, MethodChoice
from harness.grid.tuning import TuneSpec

TrialStatus = Literal["done", "failed", "pruned", "to do"]


@dataclass(frozen=True)
class Trial:
    """One setting that is tried."""

    number: int
    """From 0, in the order in which the sampler drew them."""
    settings: Mapping[str, Any]
    """The values of what is tuned, by name."""
    values: Mapping[int, float | None]
    """The validation score of each seed: a loss in nats per label token, or a benchmark's metric;
    None where that training is not done, or failed."""
    status: TrialStatus
    """`failed`: one of its trainings failed or diverged, so that it counts as the worst."""
    cells: tuple[Cell, ...]
    """One for each seed."""
    seconds: float | None = None
    """What its trainings took together; None until all of them have ended."""
    note: str | None = None
    """Why it failed, in one line, or after which epoch it was stopped."""
    losses: tuple[float, ...] = ()
    """The mean validation loss over its seeds after each epoch so far; where there is a pruner."""
    until: int | None = None
    """The number of epochs that it is trained for before the pruner decides; None: to its end."""

    @property
    def holds(self) -> bool:
        """Whether it waits until the other trials have come as far."""
        waits = self.until is not None and len(self.losses) >= self.until
        return waits and self.status == "to do"

    def reported(self, spec: TuneSpec) -> float | None:
        """What a sampler is told of it: its value; the last loss before it was stopped, where
        losses are compared; None, which is the worst, where it has neither."""
        if self.status == "pruned" and spec.on == "validation":
            return self.losses[-1]
        return self.value

    @property
    def value(self) -> float | None:
        """The mean over the seeds; None unless all of them are done."""
        known = [value for value in self.values.values() if value is not None]
        if self.status != "done" or not known or len(known) < len(self.values):
            return None
        return math.fsum(known) / len(known)


def tied_with(trials: Sequence[Trial], chosen: int | None) -> int:
    """How many other trials are as good as the chosen one, which is the first of them."""
    values = [one.value for one in trials if one.value is not None]
    best = next((one.value for one in trials if one.number == chosen), None)
    return max(0, values.count(best) - 1) if best is not None else 0


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
        train = self.choice.train
        assert train is not None
        found = {
            name: value_of(self.choice, name, None) for name in self.spec.space[self.choice.label]
        }
        if "learning_rate" in found:  # also of a recipe that states it for a batch of 256
            found["learning_rate"] = train.peak_learning_rate
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
        """Trials that are done, have failed, or were stopped early."""
        return sum(trial.status != "to do" for trial in self.trials)

    @property
    def has_ended(self) -> bool:
        """Whether every trial has."""
        return self.num_ended == self.spec.trials

    @property
    def pauses(self) -> dict[str, int]:
        """By cell id: after how many epochs a trial's training stops, until the pruner decides."""
        open_ones = [trial for trial in self.trials if trial.status == "to do"]
        return {c.id: t.until for t in open_ones if t.until is not None for c in t.cells}

    @property
    def pruned(self) -> dict[str, str]:
        """By cell id: why a trial's training was stopped early."""
        stopped = [trial for trial in self.trials if trial.status == "pruned"]
        return {cell.id: trial.note or "" for trial in stopped for cell in trial.cells}

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
