"""Which cell gets which devices: none is forgotten, and large ones do not wait for small ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.execution.scheduling import Allotment, check_gpus_per_cell, devices_needed
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState
from harness.records.results import CellResult, TrainResult
from tests.grid.test_loader import GRID

CELL = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[1]


def needing(*counts: int) -> list[CellState]:
    return [
        CellState(
            CELL.model_copy(update={"gpus_per_cell": count}), Path(str(index)), None, "to do", ()
        )
        for index, count in enumerate(counts)
    ]


def begun(allotment: Allotment) -> list[tuple[int, tuple[int, ...]]]:
    """Starts all that can start; returns what each needs and gets."""
    found = []
    while (turn := allotment.next()) is not None:
        found.append((devices_needed(turn[0]), turn[1]))
    return found


def test_cells_of_one_device_keep_their_order() -> None:
    allotment = Allotment(needing(1, 1, 1), 2)
    first, second = allotment.next(), allotment.next()
    assert first is not None
    assert second is not None
    assert [first[0].folder.name, second[0].folder.name] == ["0", "1"]
    assert (first[1], second[1]) == ((0,), (1,))
    assert allotment.next() is None
    allotment.give_back([1])
    third = allotment.next()
    assert third is not None
    assert third[1] == (1,)
    allotment.give_back([0, 1])
    assert allotment.next() is None


def test_large_cells_go_first_and_small_ones_fill_the_rest() -> None:
    assert begun(Allotment(needing(1, 1, 3, 1, 1), 4)) == [(3, (0, 1, 2)), (1, (3,))]


def test_a_waiting_large_cell_is_overtaken_on_spare_devices_only() -> None:
    allotment = Allotment(needing(3, 3, 1, 1, 1, 1), 5)
    # The second large one waits; of five devices it can do without two.
    assert begun(allotment) == [(3, (0, 1, 2)), (1, (3,)), (1, (4,))]
    allotment.give_back([3])
    assert begun(allotment) == [(1, (3,))]
    allotment.give_back([0, 1, 2])
    assert begun(allotment) == [(3, (0, 1, 2))]


def test_a_waiting_large_cell_gets_the_devices_that_become_free() -> None:
    allotment = Allotment(needing(2, 2, 2, 1, 1), 3)
    assert begun(allotment) == [(2, (0, 1)), (1, (2,))]
    allotment.give_back([2])
    assert begun(allotment) == [(1, (2,))]
    allotment.give_back([0, 1])
    assert begun(allotment) == [(2, (0, 1))]


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_gets_its_turn(seed: int) -> None:
    draw = random.Random(seed)
    counts = [draw.choice([1, 1, 1, 2, 3, 4]) for _ in range(30)]
    allotment, running, started = Allotment(needing(*counts), 4), [], []
    while True:
        running += [devices for _, devices in begun(allotment)]
        held = [device for devices in running for device in devices]
        assert len(held) == len(set(held)) <= 4
        if not running:
            break
        devices = running.pop(draw.randrange(len(running)))
        started.append(len(devices))
        allotment.give_back(devices)
    assert sorted(started) == sorted(counts)


def test_more_devices_than_there_are_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        check_gpus_per_cell(needing(1, 4, 4), 2, "--device cuda")
    assert str(caught.value) == (
        "a/zero-init-linear/10%/seed0: gpus_per_cell is 4, but --device cuda gives 2 (1 more cells "
        "likewise); lower it in the grid, take a larger machine, or choose other cells with --only"
    )
    check_gpus_per_cell(needing(1, 2), 2, "--device cuda")


def test_what_is_trained_is_scored_on_one_device() -> None:
    (state,) = needing(4)
    train = TrainResult.__new__(TrainResult)  # only whether it is there counts
    result = CellResult(cell=CELL.record(), cell_id=CELL.id, train=train)
    trained = CellState(state.cell, state.folder, result, "to do", ())
    assert (devices_needed(state), devices_needed(trained)) == (4, 1)
