"""What the tuning of each method found: its trials, their validation scores, and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.grid.tuned_methods import Trial, TunedMethod
from harness.grid.tuning import Space

if TYPE_CHECKING:
    from harness.grid.workspace import OpenGrid


@dataclass(frozen=True)
class Tuning:
    """The tuning of one method on one model and data set."""

    model: str
    """Name of the model in the grid."""
    method: str
    """Label of the tuned method; the cells of the chosen settings have that of `winner`."""
    method_title: str
    data: str | None
    """Name of the data set, where a grid has several."""
    fraction: float | None
    """Share of the training rows that the trials are trained on."""
    on: str
    """What is compared, in words: `validation loss`, or a benchmark and its metric."""
    lower_is_better: bool
    num_trials: int
    """How many there will be."""
    space: Space
    """What each setting may be: a list, or a range."""
    sampler: str
    trials: tuple[Trial, ...]
    """Those that are known so far."""
    chosen: int | None
    """Number of the trial whose settings were chosen; None where it is not decided yet."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """What the method's own recipe has in the place of what is tuned, as far as it states it."""
    gathered: tuple[str, ...] = ()
    """Labels of the rows of the study that it is gathered from, by the number of their trial: they
    have scores of their own, and nothing is trained anew. Empty of a tuning of the grid's own."""
    unit: str | None = None
    """What the validation score counts, such as `nats per token`; None of shares (0..1)."""

    @property
    def choice(self) -> Trial | None:
        """The chosen trial."""
        return next((trial for trial in self.trials if trial.number == self.chosen), None)

    @property
    def winner(self) -> str:
        """The label of the method with the chosen settings."""
        if self.gathered:
            return self.method if self.chosen is None else self.gathered[self.chosen]
        return f"{self.method}[tuned]"


def tunings(grid: OpenGrid) -> tuple[Tuning, ...]:
    """What is known of each tuning of a grid, in the order of its blocks."""
    return tuple(map(_tuning, grid.tunings))


def _tuning(found: TunedMethod) -> Tuning:
    choice, spec = found.choice, found.spec
    title = found.cells[0].method_title
    return Tuning(
        model=found.model,
        method=choice.label,
        method_title=title if choice.label == choice.method else f"{title} ({choice.label})",
        data=found.block.data,
        fraction=max(found.block.fractions),
        on=spec.on_words,
        lower_is_better=spec.lower_is_better,
        num_trials=spec.trials,
        space=spec.space[choice.label],
        sampler=spec.sampler,
        trials=found.trials,
        chosen=found.chosen,
        published=found.published,
        unit=spec.unit,
    )
