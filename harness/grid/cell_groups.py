"""Several cells by what they have in common: `method=lora,model=llama-7b,fraction=1`, all seeds.

A value given twice means either (`seed=0,seed=1`); `GRID:` before it leaves out what is not of the
grid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError, did_you_mean, shortened
from harness.grid.checks import resolve_data_root
from harness.grid.folders import Runs, cell_folder, id_of, runs_text, stored_cells
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.own_data import find_own_data
from harness.grid.several_folders import refuse_other_scores
from harness.grid.trials import unfold_stored


@dataclass(frozen=True)
class CellKey:
    """What tells a cell from the others of a study."""

    model: str
    """Name of the model in the grid."""
    method: str
    """The method's label in the grid."""
    data: str | None = None
    """Name of its data set, where the grid has several."""
    fraction: float | None = None
    """Share of the training rows; None of a method that trains nothing."""
    seed: int | None = None
    """None of a method that trains nothing."""

    def part(self, *names: str) -> tuple[Any, ...]:
        """Some of its fields."""
        return tuple(getattr(self, name) for name in names)

    def text(self, *names: str) -> str:
        """Some of its fields as words, those that are None left out."""
        words = {"fraction": "{:.4g}%", "seed": "seed{}", "data": "@{}"}
        values = ((name, getattr(self, name)) for name in names)
        return "/".join(
            words.get(name, "{}").format(100 * value if name == "fraction" else value)
            for name, value in values
            if value is not None
        )


KEYS = tuple(field.name for field in fields(CellKey))
_NEXT = re.compile(rf",(?=(?:{'|'.join(KEYS)})=)")
_SELECTOR = re.compile(r"(?:(?P<grid>[^=]*?):)?(?P<rest>[A-Za-z_]\w*=.*)", re.DOTALL)


@dataclass(frozen=True)
class CellGroup:
    """Which cells a name such as `demo:method=lora,seed=0` means."""

    name: str
    grid: str | None
    wanted: Mapping[str, tuple[str, ...]]
    """Allowed values by field of CellKey."""

    def holds(self, key: CellKey, method_name: str | None = None) -> bool:
        """Whether a cell is meant; by its method's registry name too, where that is given."""
        said = {name: {_said(value)} for name, value in vars(key).items()}
        said["method"] |= set() if method_name is None else {method_name}
        return all(said[name] & {*map(_plain, given)} for name, given in self.wanted.items())


def _said(value: Any) -> str:
    return _plain(str(value)) if isinstance(value, int | float) else str(value)


def _plain(text: str) -> str:
    """A value; of a number in one of its ways of writing: `1`, `1.0` and `100%` are one."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        return f"{float(number) / (100 if percent else 1):.12g}"
    except ValueError:
        return text


def parse_group(name: str) -> CellGroup | None:
    """The group that a name describes; None where it describes none, and may be a cell's.

    Raises:
        UsageError: it does, with a field that cells do not have.
    """
    found = _SELECTOR.fullmatch(name)
    if found is None or "/" in found["rest"].partition("=")[0]:
        return None
    wanted: dict[str, tuple[str, ...]] = {}
    for part in _NEXT.split(found["rest"]):
        key, _, value = part.partition("=")
        if key not in KEYS:
            hint = did_you_mean(key, KEYS)
            raise UsageError(f"{shortened(name)}: cells are not known by their '{key}'{hint}")
        wanted[key] = (*wanted.get(key, ()), value.strip())
    return CellGroup(name, found["grid"], wanted)


def key_of(record: Mapping[str, Any]) -> CellKey:
    """The key of a cell that `cell.json` describes.

    Raises:
        KeyError: it describes none.
    """
    return CellKey(
        model=record["model_name"],
        method=record["method_label"],
        data=record.get("data_name") if record.get("train") is not None else None,
        fraction=record["fraction"],
        seed=record["seed"],
    )


def group_folders(group: CellGroup, runs: Runs) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of a group's cells with what `cell.json` holds there, in the order of their keys.

    Raises:
        UsageError: there is none, or the grid has faults.
    """
    allowed = None if group.grid is None else _labels_of(group, runs)
    known = [(folder, record) for folder, record in stored_cells(runs) if _is_cell(record)]
    labels = {key_of(record).method for _, record in known}
    found = [
        (folder, record)
        for folder, record in known
        if (allowed is None or folder in allowed)
        and any(
            group.holds(key, _registry_name(record, labels))
            for key in _keys_of(record, () if allowed is None else allowed[folder])
        )
    ]
    if not found:
        within = f" of {group.grid}" if group.grid else ""
        raise UsageError(
            f"{shortened(group.name)}: no cell{within} in {runs_text(runs)} is so"
            f"{_known(group, known)}"
        )
    refuse_other_scores(runs, [key for folder, _ in found if (key := id_of(folder))])
    return sorted(found, key=lambda one: (*map(_order, vars(key_of(one[1])).values()),))


def _order(value: Any) -> tuple[bool, float, str]:
    number = value if isinstance(value, int | float) else 0.0
    return value is not None, number, str(value)


def _is_cell(record: Mapping[str, Any]) -> bool:
    # Repeats, and cells that draw by several seeds, are meant by their labels alone.
    own = not record.get("repeat") and not record.get("fixed_seeds")
    return own and {"model_name", "method_label", "fraction", "seed"} <= record.keys()


def _registry_name(record: Mapping[str, Any], labels: Collection[str]) -> str | None:
    """The registry name that means a cell; None where it is a label, or the cell is a tuning's."""
    name = record.get("method")
    return None if name in labels or record.get("tuning") else name


def _known(group: CellGroup, cells: list[tuple[Path, dict[str, Any]]]) -> str:
    """Of the first field whose value no cell has: which values there are."""
    keys = [(key_of(record), record.get("method")) for _, record in cells]
    for name, values in group.wanted.items():
        one = CellGroup(group.name, None, {name: values})
        if not any(one.holds(*key) for key in keys):
            there = dict.fromkeys(str(getattr(key, name)) for key, _ in keys)
            return did_you_mean(values[-1], there) if there else ""
    return ""


def _keys_of(record: Mapping[str, Any], labels: Iterable[str]) -> list[CellKey]:
    """The keys of a cell under its own label, and each that its grid gives its method."""
    key = key_of(record)
    return [replace(key, method=label) for label in (key.method, *labels)]


def _labels_of(group: CellGroup, runs: Runs) -> dict[Path, list[str]]:
    """The labels that the method of each of a grid's cells has, by the cell's folder."""
    assert group.grid is not None
    if not (group.grid in shipped_grids() or group.grid.endswith((".yaml", ".yml"))):
        hint = did_you_mean(group.grid, shipped_grids())
        raise UsageError(f"{shortened(group.grid)}: no such grid{hint}; give a name or a YAML file")
    spec = load_grid(group.grid)
    own = find_own_data(spec, resolve_data_root(spec, None, runs), runs)
    every = unfold_stored(own.settle(spec), own.contents, runs).cells
    found = {cell_folder(runs, c): [one.method_label for one in c.listings] for c in every}
    return {folder: labels for folder, labels in found.items() if id_of(folder)}
