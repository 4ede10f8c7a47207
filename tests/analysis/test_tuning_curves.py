"""Choices at an edge, and the trials over one setting."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.tuning import Tuning
from harness.analysis.tuning_curves import edges, response
from harness.grid.tuned_methods import Trial
from harness.grid.tuning import Range


def tuning(space: dict[str, Any], *settings: dict[str, Any], chosen: int | None = 0) -> Tuning:
    """Returns the tuning of such trials, each a little worse than the one before."""
    trials = tuple(
        Trial(n, each, {1_000_000: 1.0 + n / 10}, "done", ()) for n, each in enumerate(settings)
    )
    return Tuning(
        model="tiny", method="lora", method_title="LoRA", data=None, fraction=1.0,
        on="validation loss", lower_is_better=True, num_trials=len(trials), space=space,
        sampler="grid", trials=trials, chosen=chosen,
    )  # fmt: skip


def edge_of(values: Any, value: Any):
    """Returns the edge that a chosen value of one setting is at, or None."""
    found = edges(tuning({"rate": values}, {"rate": value}))
    assert len(found) <= 1
    return found[0] if found else None


RATES = [1e-3, 3e-3, 1e-2, 1e-1]


@pytest.mark.parametrize("value", [3e-3, 1e-2])
def test_inside_a_list_there_is_no_edge(value: float) -> None:
    assert edge_of(RATES, value) is None


@pytest.mark.parametrize("values", [RATES, RATES[::-1], [1e-2, 1e-3, 1e-1, 3e-3]])
def test_the_ends_of_a_list_are_those_of_its_order_by_size(values: list[float]) -> None:
    low, high = edge_of(values, 1e-3), edge_of(values, 1e-1)
    assert (low.is_highest, high.is_highest) == (False, True)
    assert low.span == high.span == (1e-3, 1e-1)
    # One step further, as large as the last one.
    assert low.beyond == pytest.approx(1e-3 / 3, rel=0.02)
    assert high.beyond == pytest.approx(1.0)


def test_whole_numbers_go_on_as_they_do() -> None:
    assert edge_of([4, 8, 16], 16).beyond == 32
    assert edge_of([4, 8, 16], 4).beyond == 2


def test_below_zero_there_is_nothing_to_try() -> None:
    assert edge_of([0.0, 0.05, 0.1], 0.0) is None
    assert edge_of([0.0, 0.05, 0.1], 0.1).beyond == pytest.approx(0.2)
    assert edge_of(Range(low=0.0, high=0.3), 0.001).beyond is None


@pytest.mark.parametrize("values", [[0.1], ["adamw", "lion"], [True, False]])
def test_one_value_and_what_is_no_number_have_no_edge(values: list[Any]) -> None:
    assert edge_of(values, values[0]) is None


@pytest.mark.parametrize(
    ("value", "is_highest"), [(1.01e-5, False), (1.5e-5, False), (3e-5, None), (5e-2, None),
                              (7e-2, True), (0.1, True)],
)  # fmt: skip
def test_a_range_has_ends_of_a_twentieth_of_its_length(value: float, is_highest) -> None:
    edge = edge_of(Range(low=1e-5, high=1e-1, log=True), value)
    assert (edge and edge.is_highest) is is_highest
    assert edge is None or edge.is_range


def test_before_a_choice_there_is_no_edge() -> None:
    assert edges(tuning({"rate": RATES}, {"rate": 1e-3}, chosen=None)) == []


def test_the_learning_rate_is_what_a_response_is_over() -> None:
    space = {"rank": [2, 4, 8], "learning_rate": [1e-3, 1e-2]}
    cells = [{"rank": r, "learning_rate": lr} for r in space["rank"] for lr in (1e-2, 1e-3)]
    found = response(tuning(space, *cells))
    assert found is not None
    assert (found.setting, found.is_log) == ("learning_rate", True)
    assert list(found.lines) == ["rank 2", "rank 4", "rank 8"]
    for trials in found.lines.values():
        assert [found.place(one.settings) for one in trials] == [1e-3, 1e-2]


def test_without_a_rate_it_is_the_number_with_the_most_values() -> None:
    cells = [{"alpha": 16, "rank": rank, "optimizer": name} for rank, name in
             ((1, "a"), (2, "b"), (3, "c"), (3, "d"))]  # fmt: skip
    found = response(tuning({}, *cells))
    assert found is not None
    assert (found.setting, found.is_log) == ("rank", False)


def test_names_stand_side_by_side_in_their_order() -> None:
    cells = [{"targets": ["v", "q"]}, {"targets": ["k"]}, {"targets": ["q"]}]
    found = response(tuning({}, *cells))
    assert found is not None
    assert sorted(found.place(one) for one in cells) == [0.0, 1.0, 2.0]
    assert found.place({"targets": ["o"]}) is None
    assert not found.is_log


def test_one_trial_has_no_response() -> None:
    assert response(tuning({"rate": [0.1]}, {"rate": 0.1})) is None
