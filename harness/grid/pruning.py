"""Stops trials early that are worse than the others after an epoch, with Optuna's pruners.

The trials of a round advance together, epoch by epoch: each is stopped after an epoch with a
checkpoint, the pruner sees the validation losses of all of them so far, and those that it keeps
resume from their checkpoints to the same bits. So what is pruned depends on the losses alone, not
on which trial was first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.grid.sampling import keep_quiet
from harness.grid.tuning import Percentile

FEWEST = 3
"""Of fewer trials none is stopped."""

Curve = Sequence[float]
"""Validation losses after each epoch so far, in nats per label token."""


@dataclass(frozen=True)
class Pruning:
    """What became of the trials of a round so far."""

    stopped: Mapping[int, int]
    """By trial: after how many epochs it was stopped."""
    until: int | None
    """The number of epochs that the others are trained for next; None: to their end."""


def prune(
    pruner: Percentile, curves: Mapping[int, Curve], failed: Sequence[int], num_epochs: int
) -> Pruning:
    """Decides after each epoch but the last which trials stop, as far as all curves reach.

    Args:
        pruner: keeps a share of the trials.
        curves: of every trial of the round, by its number; a mean over its seeds.
        failed: those that have ended without a result; nothing waits for them.
        num_epochs: of a whole training.
    """
    stopped: dict[int, int] = {}
    for epoch in range(1, num_epochs):
        left = [number for number in sorted(curves) if number not in (*stopped, *failed)]
        if len(left) < FEWEST:
            break
        if any(len(curves[number]) < epoch for number in left):
            return Pruning(stopped, epoch)
        seen = {number: curves[number][:epoch] for number in left}
        stopped |= {number: epoch for number in left if _is_worse(pruner, seen, number)}
    return Pruning(stopped, None)


def _is_worse(pruner: Percentile, curves: Mapping[int, Curve], number: int) -> bool:
    """Whether Optuna's pruner stops a trial, among those that have come as far."""
    from optuna import create_study
    from optuna.pruners import PercentilePruner
    from optuna.trial import create_trial

    keep_quiet()
    rule = PercentilePruner(pruner.percentile, n_startup_trials=FEWEST, n_warmup_steps=0)
    study = create_study(pruner=rule, direction="minimize")
    for curve in curves.values():  # as if all had ended here: it compares with such alone
        losses = dict(enumerate(curve, start=1))
        study.add_trial(create_trial(value=curve[-1], intermediate_values=losses))
    trial = study.ask()
    for epoch, loss in enumerate(curves[number], start=1):
        trial.report(loss, epoch)
    return trial.should_prune()
