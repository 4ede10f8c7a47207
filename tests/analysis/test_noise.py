"""The noise floor, and that the cells behind it stand in no table of the study."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.analysis.frames import without_noise
from harness.analysis.noise import noise_runs

REPEAT = {"noise": "repeat"}


def with_noise(results, answer, *, repeat: str = "11010000", other: str | None = "11110000") -> Any:
    """Two methods of one seed each, and trainings of the first that tell what noise does."""
    results.add("base", None, answer("10000000"))
    results.add("lora", 0, answer("11100000"))
    results.add("full", 0, answer("11111100"))
    results.add("lora", 0, answer(repeat), further={**REPEAT, "number": 1})
    if other is not None:
        results.add("lora", 1, answer(other), further={"noise": "seed"})
    return results


def floor_of(findings, column: str = "ARC-e") -> Any:
    (found,) = [one for (_, _, name), one in findings.noise.floors.items() if name == column]
    return found


def test_the_floor_is_the_largest_difference_of_two_trainings(results, answer) -> None:
    with_noise(results, answer, repeat="10000000")
    results.add("lora", 0, answer("11111000"), further={**REPEAT, "number": 2})
    floor = floor_of(results.findings())
    assert floor.scores == (3 / 8, 1 / 8, 5 / 8)
    assert floor.same_seed == 4 / 8
    assert floor.same_seed_sd == pytest.approx(np.std([3 / 8, 1 / 8, 5 / 8], ddof=1))
    assert floor.other_seed == 1 / 8
    assert floor.largest == 4 / 8
    assert floor.under(4) == 2 / 8
    assert floor.under(2, 1) == pytest.approx(4 / 8 / 2)  # one side is not trained


def test_equal_repeats_give_a_floor_of_the_other_seed_alone(results, answer) -> None:
    floor = floor_of(with_noise(results, answer, repeat="11100000").findings())
    assert (floor.same_seed, floor.same_seed_sd, floor.largest) == (0, 0, 1 / 8)


def test_a_score_of_0_counts(results, answer) -> None:
    floor = floor_of(with_noise(results, answer, other="00000000").findings())
    assert floor.other_seed == 3 / 8


def test_an_average_has_a_floor_of_its_own(results, answer) -> None:
    floor = floor_of(with_noise(results, answer).findings(), "Average")
    assert floor.largest == pytest.approx(1 / 8)


def test_noise_cells_stand_in_no_score_comparison_or_curve(results, answer) -> None:
    plain = type(results)()
    plain.add("base", None, answer("10000000"))
    plain.add("lora", 0, answer("11100000"))
    plain.add("full", 0, answer("11111100"))
    expected, found = plain.findings(), with_noise(results, answer).findings()
    for group, own in zip(expected.measured.groups, found.measured.groups, strict=True):
        assert [
            (one.label, one.column, one.estimate, one.p_holm) for one in expected.comparisons[group]
        ] == [(one.label, one.column, one.estimate, one.p_holm) for one in found.comparisons[own]]
    assert len(found.scores) == len(expected.scores)
    assert found.num_seeds == expected.num_seeds == (1, 1)
    assert found.measured.cells == expected.measured.cells
    assert len(found.data.cells) == 5  # what the grid cost has them all


def test_without_noise_leaves_a_study_that_has_none_as_it_is(small_grid) -> None:
    data = small_grid.input()
    assert without_noise(data) is data
    assert small_grid.findings().noise.floors == {}


def test_only_differences_of_ours_below_the_floor_are_marked(results, answer) -> None:
    # full - lora: 3/8; lora - base 2/8 where one side is trained, full - base 5/8
    with_noise(results, answer, repeat="00000000")  # the floor: 3/8
    found = results.findings(claims=(), compare="lora")
    below = {(one[2], one[3]) for one in found.noise.below}
    assert below == {("LoRA", "Base model")}  # 3/8 is not smaller than 3/8
    limit = floor_of(found).under(1, 1)
    assert limit == pytest.approx(3 / 8 / math.sqrt(2))
    assert 2 / 8 < limit < 3 / 8


def test_a_blocks_own_next_seed_is_the_other_one(results, answer) -> None:
    with_noise(results, answer, other=None)
    results.add("lora", 4, answer("11111110"))
    results.add("lora", 2, answer("11111111"))
    (runs,) = noise_runs(results.input().cells)
    assert runs.other == "tiny-lora-1.0-4"


@pytest.mark.parametrize(
    ("first", "again", "same"), [("a", "a", True), ("a", "b", False), (None, "a", None)]
)
def test_repeats_of_the_same_bits_are_told(results, answer, first, again, same) -> None:
    with_noise(results, answer)
    data = results.input()
    hashes = {"tiny-lora-1.0-0": first, "tiny-lora-1.0-0-repeat-1": again}
    cells = data.cells.assign(weights_sha256=[hashes.get(c) for c in data.cells["cell_id"]])
    (runs,) = noise_runs(cells)
    assert runs.same == ("tiny-lora-1.0-0", "tiny-lora-1.0-0-repeat-1")
    assert runs.same_weights is same
