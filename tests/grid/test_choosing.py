"""The choice is that of the best validation value, and nothing else is read for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.choosing import choose, validation_value
from harness.grid.tuning import ValidationScore
from harness.records.results import CellResult
from tests.records.test_results import RESULT, SCORE, TRAIN

ON = ValidationScore(task=TaskSpec(name="demo_arc_challenge"), metric="acc")
values = st.one_of(st.none(), st.integers(-3, 3).map(float))


@given(st.dictionaries(st.integers(0, 9), values), st.booleans())
def test_the_best_is_chosen_and_the_first_of_equal_ones(
    found: dict[int, float | None], lower: bool
) -> None:
    chosen = choose(found, lower_is_better=lower)
    known = {number: value for number, value in found.items() if value is not None}
    best = min(known.values(), default=None) if lower else max(known.values(), default=None)
    assert chosen == min((n for n, value in known.items() if value == best), default=None)


def test_the_loss_is_that_of_the_kept_weights() -> None:
    losses = (1.5, 1.2, 1.4)
    for kept, loss in ((None, 1.4), (1, 1.2)):
        train = replace(TRAIN, validation_losses=losses, kept_epoch=kept)
        assert validation_value(replace(RESULT, train=train), "validation") == loss
    assert validation_value(RESULT, "validation") is None
    assert validation_value(CellResult(cell={}, cell_id="a"), "validation") is None


def scored(value: float, **fields: object) -> CellResult:
    own = {"benchmark": ON.task.name, "task": ON.task.name, "key": request_key(ON.task)}
    return replace(RESULT, scores=(SCORE, replace(SCORE, value=value, **(own | fields))))


def test_a_benchmark_is_read_by_its_request_and_metric_alone() -> None:
    assert validation_value(scored(0.7), ON) == 0.7
    others = ({"key": "other"}, {"metric": "acc_norm"}, {"task": "a_subject"})
    assert [validation_value(scored(0.7, **one), ON) for one in others] == [None] * 3


@pytest.mark.parametrize("on", ["validation", ON])
def test_other_scores_change_no_value(on: object) -> None:
    train = replace(TRAIN, validation_losses=(1.5, 1.2))
    found = replace(scored(0.7), train=train)
    changed = tuple(
        replace(score, value=0.25) if score.benchmark != ON.task.name else score
        for score in found.scores
    )
    assert changed != found.scores
    assert validation_value(replace(found, scores=changed), on) == validation_value(found, on)
    assert validation_value(replace(found, scores=()), "validation") == 1.2
