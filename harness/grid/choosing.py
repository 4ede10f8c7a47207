"""The choice among trials: by their validation scores alone.

`validation_value` is all that is read of a trial's result: the validation loss of the weights that
are kept, or the metric of the one benchmark that is named for it, which nothing else of the grid
uses. `choose` gets numbers of trials and these values, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from harness.evaluation.tasks import request_key
from harness.grid.tuning import ValidationScore
from harness.records.results import CellResult


def validation_value(
    result: CellResult, on: Literal["validation"] | ValidationScore
) -> float | None:
    """A loss in nats per label token, or a metric as lm-eval has it; None where it is not there."""
    train = result.train
    if train is None:
        return None
    if on == "validation":
        losses = train.validation_losses
        kept = len(losses) - 1 if train.kept_epoch is None else train.kept_epoch
        return losses[kept] if losses else None
    key, name = request_key(on.task), on.task.name
    found = [
        score.value
        for score in result.scores
        if (score.key, score.benchmark, score.task, score.metric) == (key, name, name, on.metric)
    ]
    return found[-1] if found else None


def choose(values: Mapping[int, float | None], *, lower_is_better: bool) -> int | None:
    """The number of the best trial; the lower number of equal ones; None where none has a value.

    Args:
        values: by trial, the mean validation score; None of one that failed, which is the worst.
    """
    known = {number: value for number, value in values.items() if value is not None}
    sign = 1 if lower_is_better else -1
    return min(known, key=lambda number: (sign * known[number], number), default=None)
