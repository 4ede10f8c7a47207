"""Ranges and spaces: bounds hold, points are even, and combinations are counted."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from harness.grid.tuning import (
    LARGEST_GRID,
    Range,
    combinations,
    lists_of,
    num_combinations,
    size_fault,
)


@pytest.mark.parametrize("number", [2, 3, 5, 8])
def test_points_are_even_and_hold_both_bounds(number: int) -> None:
    line = Range(low=0.0, high=1.0).points(number)
    assert line == pytest.approx([i / (number - 1) for i in range(number)], abs=1e-4)
    rates = Range(low=1e-4, high=1e-1, log=True).points(number)
    assert (rates[0], rates[-1]) == (1e-4, 1e-1)
    ratios = [later / one for one, later in zip(rates, rates[1:], strict=False)]
    assert ratios == pytest.approx([1000 ** (1 / (number - 1))] * (number - 1), rel=1e-3)


def test_whole_bounds_give_whole_numbers_each_once() -> None:
    assert Range(low=1, high=4).points(9) == [1, 2, 3, 4]
    assert Range(low=4, high=64, log=True).points(5) == [4, 8, 16, 32, 64]
    assert all(isinstance(one, int) for one in Range(low=1, high=9).points(4))


@pytest.mark.parametrize("value", [0.00123456, 0.0999999999, 0.001, 0.05])
def test_a_drawn_value_is_short_and_within_its_bounds(value: float) -> None:
    fitted = Range(low=0.00123, high=0.099, log=True).fitted(value)
    assert 0.00123 <= fitted <= 0.099
    assert float(f"{fitted:.4g}") == fitted


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"low": 1, "high": 1}, "low must be less than high"),
        ({"low": 0, "high": 1, "log": True}, "low must be more than 0"),
        ({"low": "a", "high": 1}, "low"),
        ({"low": 1, "high": math.inf}, "high"),
    ],
)
def test_a_range_that_is_none_is_refused(raw: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Range.model_validate(raw)


def test_combinations_are_all_and_counted() -> None:
    space = {"a": (1, 2, 3), "b": ("x", "y")}
    every = list(combinations({name: list(values) for name, values in space.items()}))
    assert len(every) == num_combinations(space) == 6
    assert every[:2] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]
    assert num_combinations({**space, "c": Range(low=1, high=4)}) == 24
    assert num_combinations({**space, "c": Range(low=0.1, high=4)}) > 6 * 1000


def test_a_range_gets_as_many_points_as_the_trials_need() -> None:
    space = {"rank": (4, 8), "rate": Range(low=0.1, high=1.0)}
    assert [len(values) for values in lists_of(space, 8).values()] == [2, 4]
    assert [len(values) for values in lists_of(space, 7).values()] == [2, 4]
    assert [len(values) for values in lists_of(space, 2).values()] == [2, 1]


def test_a_space_is_neither_too_small_nor_a_grid_too_large() -> None:
    space = {"rank": (4, 8), "rate": Range(low=0.1, high=1.0)}
    assert size_fault(space, 100, "grid") is None
    assert "holds 2 settings, fewer than the 3" in str(size_fault({"a": (4, 8)}, 3, "random"))
    assert "holds 3 settings" in str(size_fault({"a": Range(low=1, high=3)}, 4, "tpe"))
    large = {name: tuple(range(50)) for name in "abcdefgh"}
    assert f"({LARGEST_GRID:,}); give fewer" in str(size_fault(large, 8, "grid"))
    assert size_fault(large, 8, "random") is None


def test_a_narrow_range_holds_few_values() -> None:
    narrow = Range(low=1.0, high=1.003)
    assert narrow.values == [1.0, 1.001, 1.002, 1.003]
    for sampler in ("random", "qmc", "tpe"):
        assert size_fault({"a": narrow}, 4, sampler) is None
        assert "holds 4 settings, fewer than the 5 trials" in str(
            size_fault({"a": narrow}, 5, sampler)
        )


@pytest.mark.parametrize(
    "wide", [Range(low=1e-6, high=0.1, log=True), Range(low=0.0, high=1.0), Range(low=-9.5, high=2)]
)
def test_a_wide_range_holds_as_many_as_trials_may_be(wide: Range) -> None:
    assert size_fault({"a": wide}, 1000, "random") is None
    assert all(wide.low <= one <= wide.high for one in wide.values)
