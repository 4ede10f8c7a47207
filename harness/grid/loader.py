"""Grid files: those that ship, and reading one; what its keys mean is in `resolver.py`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import GridError, UsageError, did_you_mean
from harness.grid.absent_methods import without_absent_methods
from harness.grid.folders import Runs
from harness.grid.resolver import NO_GRID, Resolved, resolve
from harness.grid.schema import GridSpec
from harness.readers.files import Unreadable, user_path
from harness.readers.yaml_files import parse_yaml, read_yaml_text

MOST_FAULTS = 50
"""That are told of a grid at once."""


def shipped_grids() -> dict[str, Path]:
    """The grids that ship with the package, by name."""
    folder = Path(__file__).parent.parent / "grids"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_grid(grid: str) -> Path:
    """The file that `grid` names: a shipped grid, or a path.

    Raises:
        UsageError: there is no such grid.
    """
    shipped = shipped_grids()
    if grid in shipped:
        return shipped[grid]
    path = user_path(grid)
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{grid}: is a folder; name a grid file in it")
    if path.exists():
        raise UsageError(f"{grid}: is no regular file; give a YAML file")
    if path.suffix in {".yaml", ".yml"} or "/" in grid:
        raise UsageError(f"{grid}: no such grid file; give a path that exists or a shipped grid's "
                         f"name (known: {', '.join(shipped)})")  # fmt: skip
    raise UsageError(f"{grid}: no such grid{did_you_mean(grid, shipped)}, or give a YAML file")


def read_grid(grid: str | Path, *, results: Runs | None = None) -> Resolved:
    """The grid that a name or path stands for, with its faults.

    Args:
        grid: a shipped grid's name, or a path.
        results: the runs folders, where results alone are read: an adapter may be gone since, and
            methods that are not installed here are left out, and told as that.

    Raises:
        UsageError: there is no such grid.
        GridError: the file is no YAML, or no grid at all.
    """
    path = find_grid(str(grid))
    try:
        text = read_yaml_text(path)
        parsed = parse_yaml(text, Path(path.name))
    except Unreadable as fault:
        if fault.cause == "empty":
            raise GridError([f"{path.name}: is empty; it {NO_GRID}"]) from fault
        raise GridError([str(fault)]) from fault
    resolved = functools.partial(
        resolve,
        place=path.name,
        text=text,
        folder=path.parent,
        known=parsed.faults,
        results=results,
    )
    if results is not None and not parsed.faults:
        rest, lines = without_absent_methods(
            parsed.content, place=path.name, folder=path.parent, results=results
        )
        if lines and not (found := resolved(rest, whole=parsed.content)).faults:
            return replace(found, left_out=lines)
    return resolved(parsed.content)


def load_grid(grid: str | Path) -> GridSpec:
    """The validated grid that a name or path stands for.

    Raises:
        UsageError: there is no such grid.
        GridError: the file has faults; all of them are listed.
    """
    found = read_grid(grid)
    refuse(found.faults)
    return found.grid


def refuse(faults: Sequence[str]) -> None:
    """Tells faults, if there are any.

    Raises:
        GridError: there are; the first MOST_FAULTS are listed.
    """
    if faults:
        more = len(faults) - MOST_FAULTS
        rest = [f"{more} more faults; correct these first"] if more > 0 else []
        raise GridError([*faults[:MOST_FAULTS], *rest])
