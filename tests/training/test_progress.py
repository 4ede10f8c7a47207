"""What a training adds up to; a loss that explodes is told, one that falls or wavers is not."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from harness.training.progress import EXPLOSION_RATIO, WINDOW_STEPS, Progress, StepRecord
from harness.training.step import BatchTotals


def after(losses: Sequence[float]) -> tuple[Progress, list[int]]:
    """Returns the progress behind steps of these losses, and the steps at which it told of one."""
    progress, told = Progress.begin(1), []
    for step, loss in enumerate(losses, start=1):
        record = StepRecord(step, 0, loss, 1e-3 * step, 8, 0.5 * step, 16.0, 1000 * step)
        progress.add(record, BatchTotals(4 * loss, 4, 8, 1.0))
        if progress.explosion():
            told.append(step)
    return progress, told


def ramp(first: float, last: float, steps: int) -> list[float]:
    return [first + (last - first) * index / (steps - 1) for index in range(steps)]


@pytest.mark.parametrize(
    "losses",
    [
        ramp(4.0, 1.0, 60),
        [1.8] * 60,
        [1.0, 9.0, *[1.0] * 38],  # one hard batch
        ramp(1.0, 1.9, 60),  # it rises, but not by far
        [1.0, *[2.5] * 5],  # shorter than a window
    ],
)
def test_a_loss_that_does_not_explode_is_left_alone(losses: list[float]) -> None:
    progress, told = after(losses)
    assert told == []
    assert progress.note() is None


def test_a_loss_that_explodes_is_told_at_its_window_and_kept() -> None:
    progress, told = after([*ramp(1.5, 1.2, 20), *ramp(2.0, 9.0, 20)])
    assert told == [30, 40]
    note = progress.note()
    assert note is not None
    assert note.startswith("the loss exploded: 3.658 in steps 21 to 30, 1.5 in the first")
    assert note.endswith("the training ended at 7.342")


def test_a_loss_that_came_back_is_still_told_of() -> None:
    progress, told = after([*[1.0] * 10, *[5.0] * 10, *[0.9] * 20])
    assert told == [20]
    note = progress.note()
    assert note is not None
    assert note.endswith("ended at 0.9")


def test_the_rule_is_as_documented() -> None:
    assert (WINDOW_STEPS, EXPLOSION_RATIO) == (10, 2.0)
    high = EXPLOSION_RATIO * 1.0 + 0.01
    assert after([1.0, *[high] * 19])[1] == [20]  # the first window still holds the first step
    assert after([1.0] * 10 + ramp(high + 1, high, 10) + ramp(high, high - 0.5, 10))[1] == [20]


def test_sums_survive_json() -> None:
    progress, _ = after(ramp(1 / 3, 1 / 7, 25))
    progress.peak_memory_bytes = 5
    found = Progress.from_json(json.loads(json.dumps(progress.to_json())))
    assert found == progress
    assert (found.step, found.tokens, found.seconds) == (25, 200, 12.5)
    assert found.labels == [100]
    assert found.highest_rate == pytest.approx(0.025)
