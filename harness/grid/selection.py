"""Which cells a command means: `--only` for several, and one rule for the name of a single one.

A cell is named by its id, the beginning of one (four digits or more), its label, its folder, or
`GRID:CELL` with any of these after the colon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import UsageError, did_you_mean, shortened
from harness.grid.checks import resolve_data_root
from harness.grid.folders import CELL_FILE, Runs, cell_folder, cell_folders, runs_text, stored_label
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.names import slug_of
from harness.grid.own_data import find_own_data
from harness.grid.schema import Cell
from harness.grid.several_folders import refuse_other_scores
from harness.grid.trials import unfold_stored
from harness.grid.tuned_methods import TunedMethod
from harness.readers.files import user_path
from harness.records.results import RESULT_FILE

SHORTEST_ID = 4
"""Digits that the beginning of an id must have to name a cell."""


class UnknownCell(UsageError):
    """No cell has a name.

    Attributes:
        labels: of the cells that there are.
    """

    def __init__(self, name: str, labels: Iterable[str], place: Runs | None = None) -> None:
        self.labels = tuple(labels)
        where = "" if place is None else f" in {runs_text(place)}"
        known = did_you_mean(name, self.labels)
        super().__init__(f"{shortened(name)}: no such cell{where}{known}")


def is_chosen(cell: Cell, only: str | None) -> bool:
    """Whether one of a cell's labels, or its id, contains every word of `only`."""
    words = (only or "").split()
    labels = [one.label for one in cell.listings]
    return any(all(word in label or word in cell.id for word in words) for label in labels)


def select_cells(
    cells: Sequence[Cell], only: str | None, tunings: Sequence[TunedMethod] = ()
) -> list[Cell]:
    """The cells whose label or id contains every word of `only`.

    Raises:
        UsageError: no cell does, or none that is known before the trials of a tuning have ended.
    """
    if not only:
        return list(cells)
    chosen = [cell for cell in cells if is_chosen(cell, only)]
    if not chosen:
        said = "matches no cell; `zbench plan GRID` lists their labels"
        for tuning in tunings:
            if any(is_chosen(cell, only) for cell in tuning.waiting):
                name = f"{tuning.label} with the chosen settings"
                said = f"{name} {tuning.waits_for}; run these first, without --only or with "
                said += f"--only '{tuning.choice.label}[trial'"
                break
        raise UsageError(f"--only '{shortened(only)}': {said}")
    return chosen


def find_cell(cells: Sequence[Cell], name: str, *, grid: str | None = None) -> Cell:
    """The cell of a grid that `name` means, by the rule of this module.

    `grid` is what the user called the grid; `GRID:CELL` may name no other.

    Raises:
        UsageError: there is no such cell, or several.
    """
    before, colon, after = name.partition(":")
    wanted = after if colon and before == grid else name
    chosen = _match(wanted, {cell.id: _names(cell) for cell in cells})
    return next(cell for cell in cells if cell.id == chosen)


def _names(cell: Cell) -> tuple[str, ...]:
    """A cell's label and slug, and those of its other names."""
    return tuple(name for one in cell.listings for name in (one.label, one.slug))


def find_folder(name: str, runs: Runs) -> Path:
    """The folder of the stored cell that `name` means, by the rule of this module.

    The folder's `result.json` or `cell.json` stands for the folder.

    Raises:
        UnknownCell: no cell that was begun has this name.
        UsageError: there are several, or two scores of it; the grid of `GRID:CELL` has faults or no
            such cell.
    """
    if (folder := _folder_at(name)) is not None:
        return folder
    grid, colon, cell = name.partition(":")
    if colon and (grid in shipped_grids() or grid.endswith((".yaml", ".yml"))):
        spec = load_grid(grid)
        own = find_own_data(spec, resolve_data_root(spec, None, runs), runs)
        every = unfold_stored(own.settle(spec), own.contents, runs).cells
        found = find_cell(every, cell)
        if (fault := own.fault_of([found])) is not None:
            raise UsageError(fault)
        refuse_other_scores(runs, [found.id])
        return cell_folder(runs, found)
    folders = cell_folders(runs)
    names: dict[str, tuple[str, ...]] = {
        cell_id: (_label(folder, name), folder.name.rpartition("--")[0])
        for cell_id, folder in folders.items()
        if any((folder / f).is_file() for f in (CELL_FILE, RESULT_FILE))
    }
    cell_id = name if name in folders else _match(name, names, runs)
    refuse_other_scores(runs, [cell_id])
    return folders[cell_id]


def _label(folder: Path, wanted: str) -> str:
    """The label in a folder; of a damaged one `wanted`, if the folder is named for it."""
    slug = folder.name.rpartition("--")[0]
    return stored_label(folder) or (wanted if slug_of(wanted) == slug else "")


def _folder_at(name: str) -> Path | None:
    """The folder of a cell that a path names, if it does."""
    try:
        path = user_path(name)
        folder = path.parent if path.name in (CELL_FILE, RESULT_FILE) else path
        return folder if any((folder / f).is_file() for f in (CELL_FILE, RESULT_FILE)) else None
    except (UsageError, OSError):  # no file can have this path, so that it is a name
        return None


def _match(name: str, names: Mapping[str, tuple[str, ...]], place: Runs | None = None) -> str:
    """The id that `name` means, of cells given as id -> label and slug."""
    cell_id = Path(name).name.rpartition("--")[2]  # of a folder, `<slug>--<id>`
    if cell_id in names:
        return cell_id
    begun = [known for known in names if len(name) >= SHORTEST_ID and known.startswith(name)]
    found = [known for known, labels in names.items() if name in labels] or begun
    if not found:
        raise UnknownCell(name, filter(None, (labels[0] for labels in names.values())), place)
    if len(found) > 1:
        listed = ", ".join(found)
        raise UsageError(f"{name}: {len(found)} cells have this name ({listed}); give an id")
    return found[0]
