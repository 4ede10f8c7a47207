"""A loss that explodes is told, one that falls or wavers is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.training.loss_watch import EXPLOSION_RATIO, WINDOW_STEPS, explosion, explosion_note
from harness.training.progress import StepRecord


def after(losses: Sequence[float]) -> tuple[list[StepRecord], list[int]]:
    """Returns the records of steps of these losses, and the steps that show an explosion."""
    records, told = [], []
    for step, loss in enumerate(losses, start=1):
        records.append(StepRecord(step, 0, loss, 1e-3 * step, 8, 0.5 * step, 16.0, 1000 * step))
        if explosion(records):
            told.append(step)
    return records, told


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
    records, told = after(losses)
    assert told == []
    assert explosion_note(records) is None


def test_a_loss_that_explodes_is_told_at_its_window_and_kept() -> None:
    records, told = after([*ramp(1.5, 1.2, 20), *ramp(2.0, 9.0, 20)])
    assert told == [30, 40]
    note = explosion_note(records)
    assert note is not None
    assert note.startswith("the loss exploded: 3.658 in steps 21 to 30, 1.5 in the first")
    assert note.endswith("the training ended at 7.342")


def test_a_loss_that_came_back_is_still_told_of() -> None:
    records, told = after([*[1.0] * 10, *[5.0] * 10, *[0.9] * 20])
    assert told == [20]
    note = explosion_note(records)
    assert note is not None
    assert note.endswith("ended at 0.9")


def test_the_rule_is_as_documented() -> None:
    assert (WINDOW_STEPS, EXPLOSION_RATIO) == (10, 2.0)
    high = EXPLOSION_RATIO * 1.0 + 0.01
    assert after([1.0, *[high] * 19])[1] == [20]  # the first window still holds the first step
    assert after([1.0] * 10 + ramp(high + 1, high, 10) + ramp(high, high - 0.5, 10))[1] == [20]
