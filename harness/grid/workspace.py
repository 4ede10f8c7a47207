"""A grid as one command sees it: its chosen cells, their states, its data; each found out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.data.sets import count_rows
from harness.demo.world import world_folder, write_world
from harness.errors import UsageError
from harness.grid.checks import (
    check_data_versions,
    check_fractions,
    check_sources,
    resolve_data_root,
)
from harness.grid.folders import check_writable
from harness.grid.loader import load_grid
from harness.grid.own_data import find_own_data
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.selection import select_cells
from harness.grid.status import CellState, read_states


@dataclass(frozen=True)
class OpenGrid:
    """A grid with the places that the command line gave."""

    argument: str
    """What the user called it."""
    spec: GridSpec
    cells: list[Cell]
    """The chosen ones."""
    runs_dir: Path
    data_root: Path | None
    data_fault: str | None = None
    """Why the content of the file of one's own that cells train on is not known: so neither are
    their ids."""

    @cached_property
    def states(self) -> list[CellState]:
        """How far each cell was when this was first asked."""
        return self.read_states()

    def read_states(self) -> list[CellState]:
        """How far each cell is now.

        Raises:
            UsageError: it is not known what they are trained on.
        """
        if self.data_fault is not None and any(cell.train is not None for cell in self.cells):
            raise UsageError(self.data_fault)
        return read_states(self.cells, runs_dir=self.runs_dir, data_root=self.data_root)

    @cached_property
    def data_contents(self) -> dict[str, str]:
        """What rows the cells were trained on so far, by the hub's `source@revision`."""
        found: dict[str, str] = {}
        for state in self.states:
            train, data = state.result and state.result.train, state.cell.data
            if train and train.data_content_sha256 and data.source is not None:
                found.setdefault(f"{data.source}@{data.revision}", train.data_content_sha256)
        return found

    @cached_property
    def num_rows(self) -> int | None:
        """Size of the training data, where it is known."""
        return count_rows(self.spec.data, self.data_root)


def open_grid(grid: str, runs_dir: Path, data_root: Path | None, only: str | None) -> OpenGrid:
    """The grid, validated, with its chosen cells.

    Raises:
        UsageError: the grid has faults, or nothing is chosen, or a folder is not there.
    """
    spec = load_grid(grid)
    root = resolve_data_root(spec, data_root, runs_dir)
    own = find_own_data(spec, root, runs_dir)
    return OpenGrid(
        argument=grid,
        spec=spec,
        cells=select_cells(expand(spec, own.sha256), only),
        runs_dir=runs_dir,
        data_root=root,
        data_fault=own.fault,
    )


def prepare_run(grid: OpenGrid, *, allow_data_mismatch: bool = False) -> list[str]:
    """Checks what can be checked before anything runs, and writes the embedded world.

    Returns:
        Warnings: local data that are not the pinned version, where that is allowed.

    Raises:
        UsageError: a folder cannot be written, a local file that cells read is not there, or is
            another version of its data set.
    """
    check_writable(grid.runs_dir)
    world = world_folder(grid.runs_dir)
    if grid.spec.world is not None and grid.data_root == world:
        write_world(world)
    check_sources(grid.cells, grid.data_root)
    check_fractions(grid.cells, grid.num_rows)
    return check_data_versions(grid.cells, grid.data_root, allow=allow_data_mismatch)


def refuse_changed_inputs(states: Sequence[CellState]) -> None:
    """Stops before numbers of different data or weights meet in one grid.

    Raises:
        UsageError: what the results were made from has changed since; the message names the first.
    """
    stale = [state.fault for state in states if state.status == "stale"]
    if stale:
        more = f" ({len(stale) - 1} more cells have changed too)" if len(stale) > 1 else ""
        raise UsageError(f"{stale[0]}{more}")
