"""`zbench clean`: what of a runs folder nobody needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.commands.display import console, print_json, print_line, print_warnings, size_text
from harness.errors import StorageError, UsageError
from harness.grid.schema import Cell
from harness.grid.upkeep import Waste, find_waste


def clean_command(runs_dir: Path, cells: Sequence[Cell], *, remove: bool, as_json: bool) -> int:
    """Lists what may be removed, and removes it if asked to.

    Args:
        cells: those of all grids that are named: what is in none of them may go.

    Returns:
        1 where something could not be removed, else 0.
    """
    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: no such folder; name the one to look at with --runs-dir")
    ids = {name for cell in cells for name in (cell.id, *cell.former_ids)}
    waste, alone = find_waste(runs_dir, ids)
    faults = _remove(waste) if remove else []
    total = sum(one.size_bytes for one in waste)
    if as_json:
        listed = [{"path": str(w.path), "why": w.why, "bytes": w.size_bytes} for w in waste]
        record = {"removed": remove, "bytes": total, "waste": listed}
        print_json({**record, "left_alone": alone, "faults": faults})
        return 1 if faults else 0
    screen = console()
    for one in waste:
        print_line(screen, f"{size_text(one.size_bytes):>9}  {one.why}: {one.path}")
    print_warnings(screen, [*alone, *faults])
    done = "removed" if remove else "may be removed; with --yes it is"
    print_line(screen, f"{size_text(total)} in {len(waste)} places {done}")
    return 1 if faults else 0


def _remove(waste: Sequence[Waste]) -> list[str]:
    """Removes it; what could not be removed, one line each."""
    faults = []
    for one in waste:
        try:
            one.remove()
        except StorageError as fault:
            faults.append(str(fault))
    return faults
