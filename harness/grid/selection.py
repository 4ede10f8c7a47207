"""TODO: say what this is for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError, did_you_mean
from harness.grid.schema import Cell


def select_cells(cells: Sequence[Cell], only: str | None) -> list[Cell]:
    """Returns the cells whose label or id contains every word of `only`.

    Raises:
        UsageError: no cell does.
    """
    if not only:
        return list(cells)
    words = only.split()
    chosen = [
        cell for cell in cells if all(word in cell.label or word in cell.id for word in words)
    ]
    if not chosen:
        raise UsageError(f"--only {only!r}: matches no cell; `zbench plan GRID` lists their labels")
    return chosen


def find_cell(cells: Sequence[Cell], name: str) -> Cell:
    """Returns the cell with this id (or the beginning of one) or label.

    Raises:
        UsageError: there is none, or several.
    """
    exact = [cell for cell in cells if name in (cell.label, cell.id, cell.slug)]
    if exact:
        return exact[0]
    begun = [cell for cell in cells if len(name) >= 4 and cell.id.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise UsageError(f"{name}: begins the ids of {len(begun)} cells; give more digits")
    hint = did_you_mean(name, [cell.label for cell in cells])
    raise UsageError(f"{name}: no such cell{hint}")
