"""Which cell gets which devices next, where some cells need several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.errors import UsageError
from harness.grid.status import CellState


def devices_needed(state: CellState) -> int:
    """Returns how many devices a cell takes: what is trained already is scored on one."""
    return 1 if state.trained else state.cell.gpus_per_cell


def check_gpus_per_cell(states: Iterable[CellState], num_devices: int, setting: str) -> None:
    """Refuses cells that need more devices than there are.

    Args:
        states: what is to run.
        num_devices: that the run has.
        setting: how the user named them.

    Raises:
        UsageError: one does, and how many more.
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
    """The cells that wait and the devices that are free.

    Cells that need more devices go first, so that large ones do not wait for many small ones to
    end together. Where the first in line still has to wait, a later cell may overtake it only on
    devices that the first can do without: it waits for cells that began before its turn, and for
    no other. So every cell's turn comes.

    Args:
        states: the cells, in the order of the grid.
        num_devices: devices, known by number from 0.
    """

    def __init__(self, states: Sequence[CellState], num_devices: int) -> None:
        self._waiting = sorted(states, key=devices_needed, reverse=True)  # stable
        self._num_devices = num_devices
        self._free = list(range(num_devices))
        self._overtaken: set[int] = set()
        """Devices of cells that overtook the first in line."""

    @property
    def waiting(self) -> bool:
        """Whether a cell has not had its turn."""
        return bool(self._waiting)

    def next(self) -> tuple[CellState, tuple[int, ...]] | None:
        """Returns the next cell to start with its devices; None where none can start now."""
        for place, state in enumerate(self._waiting):
            needed = devices_needed(state)
            if needed > len(self._free):
                continue
            spare = self._num_devices - devices_needed(self._waiting[0])
            if place > 0 and len(self._overtaken) + needed > spare:
                continue
            self._waiting.pop(place)
            devices, self._free = tuple(self._free[:needed]), self._free[needed:]
            self._overtaken = self._overtaken | {*devices} if place > 0 else set()
            return state, devices
        return None

    def give_back(self, devices: Iterable[int]) -> None:
        """Takes devices back from a cell that has ended there."""
        for device in devices:
            assert device not in self._free
            self._free.append(device)
            self._overtaken.discard(device)
        self._free.sort()
