"""The pruner decides from the losses of all trials alone, and never stops the best of them."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.grid.pruning import prune
from harness.grid.tuning import Percentile

MEDIAN = Percentile(percentile=50)
curves = st.lists(
    st.lists(st.floats(0, 9, allow_nan=False), min_size=3, max_size=3), min_size=2, max_size=7
)


@settings(max_examples=25, deadline=None)
@given(curves)
def test_the_rule_is_the_median_of_those_that_are_left_and_the_best_goes_on(
    found: list[list[float]],
) -> None:
    by_number = dict(enumerate(found))
    pruned = prune(MEDIAN, by_number, [], 4)
    left, stopped = set(by_number), {}
    for epoch in (1, 2, 3):
        out = set()
        for number in left:
            middle = statistics.median(found[other][epoch - 1] for other in left)
            worse = len(left) >= 3 and min(found[number][:epoch]) > middle
            out |= {number} if worse else set()
        assert not out or min(left, key=lambda n: min(found[n][:epoch])) not in out
        left -= out
        stopped |= dict.fromkeys(out, epoch)
    assert (dict(pruned.stopped), pruned.until) == (stopped, None)


def test_nothing_is_decided_before_all_have_come_as_far() -> None:
    full = {0: [3.0, 2.0], 1: [2.0, 1.0], 2: [9.0, 8.0], 3: [4.0, 3.0]}
    short = {**full, 1: []}
    assert prune(MEDIAN, short, [], 3).until == 1
    assert not prune(MEDIAN, short, [], 3).stopped
    once = {number: curve[:1] for number, curve in full.items()}
    assert prune(MEDIAN, once, [], 3) == prune(MEDIAN, {**once, 0: full[0]}, [], 3)
    assert dict(prune(MEDIAN, once, [], 3).stopped) == {2: 1, 3: 1}
    assert prune(MEDIAN, once, [], 3).until is None  # two are left, and none of two is stopped
    five = {**once, 4: [1.0], 5: [1.0]}
    assert prune(MEDIAN, five, [], 3).until == 2


def test_nobody_waits_for_a_trial_that_failed() -> None:
    found = {0: [3.0], 1: [], 2: [9.0], 3: [2.0]}
    assert prune(MEDIAN, found, [], 2).until == 1
    assert prune(MEDIAN, found, [1], 2).until is None
    assert dict(prune(MEDIAN, found, [1], 2).stopped) == {2: 1}


@pytest.mark.parametrize(("percentile", "kept"), [(25, 2), (50, 4), (75, 6)])
def test_a_percentile_keeps_that_share(percentile: float, kept: int) -> None:
    found = {number: [float(number)] for number in range(8)}
    stopped = prune(Percentile(percentile=percentile), found, [], 2).stopped
    assert len(found) - len(stopped) == kept
    assert set(stopped) == set(range(8 - len(stopped), 8))
