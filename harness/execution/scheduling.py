"""Scheduling: which cell starts next, on which devices, where some cells need several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.errors import UsageError
from harness.grid.status import CellState


def devices_needed(state: CellState) -> int:
    """How many devices a cell takes: several train it, one scores it once it is trained."""
    return 1 if state.trained else state.cell.gpus_per_cell


def check_gpus_per_cell(states: Iterable[CellState], num_devices: int, setting: str) -> None:
    """Refuses cells that need more devices than `setting`, the user's flag, gives.

    Raises:
        UsageError: a cell needs more; the message names the first and counts the others.
    """
    large = [state for state in states if devices_needed(state) > num_devices]
    if large:
        more = f" ({len(large) - 1} more cells likewise)" if len(large) > 1 else ""
        raise UsageError(
            f"{large[0].cell.label}: gpus_per_cell is {devices_needed(large[0])}, but {setting} "
            f"gives {num_devices}{more}; lower it in the grid, take a larger machine, or choose "
            "other cells with --only"
        )


class Allotment:
    """The queue of waiting cells and the devices that are free.

    Cells that need more devices go first, so that large ones do not wait for many small ones to
    end together. While the first in the queue waits, a later cell overtakes it only on devices that
    the first can do without, so that it waits only for cells that began before its turn. No cell
    starves. Devices are their indices, from 0.
    """

    def __init__(self, states: Sequence[CellState], num_devices: int) -> None:
        self._waiting = sorted(states, key=devices_needed, reverse=True)  # stable
        self._num_devices = num_devices
        self._free = list(range(num_devices))
        self._overtaken: set[int] = set()
        """Devices of cells that overtook the first in the queue."""

    def next(self) -> tuple[CellState, tuple[int, ...]] | None:
        """The next cell to start with its devices, or None where none can start now."""
        for index, state in enumerate(self._waiting):
            needed = devices_needed(state)
            if needed > len(self._free):
                continue
            spare = self._num_devices - devices_needed(self._waiting[0])
            if index > 0 and len(self._overtaken) + needed > spare:
                continue
            self._waiting.pop(index)
            devices, self._free = tuple(self._free[:needed]), self._free[needed:]
            self._overtaken = self._overtaken | {*devices} if index > 0 else set()
            return state, devices
        return None

    def give_back(self, devices: Iterable[int]) -> None:
        """Marks the devices of a cell that has ended as free."""
        for device in devices:
            assert device not in self._free
            self._free.append(device)
            self._overtaken.discard(device)
        self._free.sort()
