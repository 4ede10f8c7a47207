"""Grid files: those that ship, and reading one; what its keys mean is in `resolver.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.errors import GridError, UsageError, did_you_mean
from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec


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
    path = Path(grid)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or "/" in grid:
        raise UsageError(f"{grid}: no such grid file; give a path that exists or a shipped grid's "
                         f"name (known: {', '.join(shipped)})")  # fmt: skip
    raise UsageError(f"{grid}: no such grid{did_you_mean(grid, shipped)}, or give a YAML file")


def load_grid(grid: str | Path) -> GridSpec:
    """The validated grid that a name or path stands for.

    Raises:
        UsageError: there is no such grid.
        GridError: the file has faults; all of them are listed.
    """
    path = find_grid(str(grid))
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # derives from SafeLoader
    except UnicodeDecodeError as fault:
        raise GridError([f"{path.name}: is no UTF-8 text ({fault.reason})"]) from fault
    except OSError as fault:
        raise UsageError(f"{path}: cannot be read ({fault.strerror})") from fault
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(fault, "problem", None) or str(fault)
        raise GridError([f"{path.name}{where}: is no valid YAML ({problem})"]) from fault
    return resolve_grid(raw, place=path.name, text=text, folder=path.parent)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML's last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
