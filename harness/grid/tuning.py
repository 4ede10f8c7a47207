"""How a block's methods are tuned: the same number of trials for each, from a space of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from harness.errors import shortened
from harness.evaluation.tasks import TaskSpec
from harness.spec import Fault, Spec

FIRST_SEED = 1_000_000
"""The seed of the first training of a trial: blocks use smaller ones, so that what is chosen is
trained with seeds that the choice has not seen."""
DIGITS = 4
"""Significant digits of the values that are drawn from a range."""
LARGEST_GRID = 100_000
"""Combinations that a grid is drawn from: Optuna lists them."""
VALIDATION_LOSS = "validation loss"
Sampler = Literal["grid", "random", "qmc", "tpe"]


def _number(raw: Any) -> Any:
    """A bound of a range; one fault of what is none, whichever kind of number it might be."""
    for kind in (int, float):
        try:
            value = raw if isinstance(raw, int | float) else kind(raw)
        except (TypeError, ValueError, OverflowError):
            continue
        if not isinstance(raw, bool) and math.isfinite(value):
            return value
    raise Fault(f"must be a number (got {shortened(str(raw))})")


Bound = Annotated[int | float, BeforeValidator(_number)]


class Range(Spec):
    """Values between two bounds, both included; whole numbers where both bounds are."""

    low: Bound
    high: Bound
    log: bool = False
    """Whether they are even on a logarithmic scale."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be more than 0 on a logarithmic scale")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def fitted(self, value: float) -> int | float:
        """A drawn value as it is used: whole, or of DIGITS significant digits, and in bounds."""
        near = round(value) if self.is_whole else float(f"{value:.{DIGITS}g}")
        return min(max(near, self.low), self.high)

    @cached_property
    def values(self) -> Sequence[int | float]:
        """All values that can be drawn from it, rising; of a wide range so many as suffice."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return range(self.low, self.high + 1)
        largest = max(abs(self.low), abs(self.high))
        step = 10.0 ** (math.floor(math.log10(largest)) - DIGITS + 1)
        count = math.ceil((self.high - self.low) / step)
        even = [self.low, *(self.fitted(self.low + step * one) for one in range(count)), self.high]
        return sorted(set(even))

    def points(self, number: int) -> list[int | float]:
        """So many values at equal distances, the bounds among them; fewer where whole numbers
        coincide."""
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        shares = [index / (number - 1) for index in range(number)] if number > 1 else [0.5]
        even = [ends[0] + (ends[1] - ends[0]) * share for share in shares]
        return list(dict.fromkeys(self.fitted(math.exp(v) if self.log else v) for v in even))


Values = tuple[Any, ...] | Range
"""What a setting may be: a list of values, or a range."""
Space = Mapping[str, Values]
"""What is tuned of one method: its options and training settings by name."""


class ValidationScore(Spec):
    """A benchmark that the trials are compared by, which nothing else of the grid uses."""

    task: TaskSpec
    metric: str

    @property
    def lower_is_better(self) -> bool:
        """Whether the lower value of the metric is the better one."""
        return not self.task.benchmark.direction(self.metric)


class Percentile(Spec):
    """Optuna's PercentilePruner: the share of trials that is trained further after each epoch."""

    percentile: Annotated[float, Field(gt=0, lt=100)]


class TuneSpec(Spec):
    """A block's `tune`, validated."""

    trials: int
    """Of each method."""
    seeds: int = 1
    """Trainings of each trial."""
    on: Literal["validation"] | ValidationScore = "validation"
    """The validation loss of the weights that are kept, or a benchmark of its own."""
    sampler: Sampler = "grid"
    pruner: Percentile | None = None
    """Which trials are stopped early; `median` is the percentile 50."""
    batch: int = 4
    """Trials of a round of tpe, which draws from the results of the rounds before."""
    space: dict[str, dict[str, Values]]
    """By the label of each trained method of the block."""

    @property
    def lower_is_better(self) -> bool:
        """Whether the lower score is the better one."""
        return True if self.on == "validation" else self.on.lower_is_better

    @property
    def on_words(self) -> str:
        """What the trials are compared by."""
        return (
            VALIDATION_LOSS if self.on == "validation" else f"{self.on.task.name} {self.on.metric}"
        )

    @property
    def pruner_words(self) -> str:
        """The rule by which trials are stopped early."""
        if self.pruner is None:
            return "none"
        share = self.pruner.percentile
        return "median pruner" if share == 50 else f"pruner that keeps {share:g}% after an epoch"

    @property
    def unit(self) -> str | None:
        """What the validation score counts; None of a share (0..1)."""
        if self.on == "validation":
            return "nats per token"
        return self.on.task.benchmark.unit(self.on.metric)

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """What a trial is scored on."""
        return () if self.on == "validation" else (self.on.task,)

    @property
    def trial_seeds(self) -> range:
        """The seeds of each trial."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)


def lists_of(space: Space, trials: int) -> dict[str, list[Any]]:
    """The space as lists alone: a range becomes as many points as a grid of `trials` needs."""
    ranges = [one for one in space.values() if isinstance(one, Range)]
    listed = math.prod(len(one) for one in space.values() if not isinstance(one, Range))
    points = 1
    while ranges and listed * points ** len(ranges) < trials:
        points += 1
    return {
        name: one.points(points) if isinstance(one, Range) else list(one)
        for name, one in space.items()
    }


def combinations(space: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yields every combination of lists of values, the last setting changing first."""
    return (dict(zip(space, values, strict=True)) for values in product(*space.values()))


def values_of(values: Values) -> Sequence[Any]:
    """All values of a setting."""
    return values.values if isinstance(values, Range) else values


def num_combinations(space: Space) -> int:
    """How many settings a space holds; of wide ranges so many as suffice."""
    return math.prod(len(values_of(one)) for one in space.values())


def size_fault(space: Space, trials: int, sampler: Sampler) -> str | None:
    """Why so many trials cannot be drawn from a space; None where they can."""
    found = num_combinations(space)
    if sampler == "grid":
        found = math.prod(len(values) for values in lists_of(space, trials).values())
        if found > LARGEST_GRID:
            said = f"holds {found:,} settings, more than a grid is drawn from ({LARGEST_GRID:,})"
            return f"{said}; give fewer values, or sampler: random"
    if found < trials:
        said = f"holds {found} settings, fewer than the {trials} trials"
        return f"{said}; add values, or lower trials"
    return None


Trials = Annotated[int, Field(ge=2, le=1000)]
TrialSeeds = Annotated[int, Field(ge=1, le=100)]
BatchSize = Annotated[int, Field(ge=1, le=1000)]
