"""What is compared with what: results by their names, alone or in groups, and how they pair up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import StorageError, TrackingError, UsageError, did_you_mean, shortened
from harness.grid.cell_groups import CellGroup, CellKey, group_folders, key_of, parse_group
from harness.grid.folders import CELL_FILE, Runs, items_path, runs_folders, runs_text, stored_label
from harness.grid.selection import UnknownCell, find_folder
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.results import CellResult, read_result

PAIRED_BY = ("model", "method", "data", "fraction", "seed")


@dataclass(frozen=True)
class Side:
    """One of two results, and where it lies."""

    label: str
    place: str
    """Its folder, or its MLflow run."""
    result: CellResult
    items: Callable[[str, str], Path | None]
    """File of the per-item records of a benchmark and evaluation, if there is one."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What `cell.json` holds, where it is at hand."""

    @property
    def key(self) -> CellKey:
        """What tells the cell from the others of its study."""
        try:
            return key_of(self.record)
        except KeyError:
            cell = self.result.cell
            model = cell.get("model", {})
            name = str(model.get("name") or model.get("source"))
            method = str(cell.get("method"))
            return CellKey(name, method, None, cell.get("fraction"), cell.get("seed"))


@dataclass(frozen=True)
class Sides:
    """One or several results that stand together on one side of a comparison."""

    name: str
    members: tuple[Side, ...]
    left_out: tuple[str, ...] = ()
    """Cells that the name means and that have no result, one line each."""


@dataclass(frozen=True)
class Pairs:
    """Results of two sides that answer each other, and those that stand alone."""

    pairs: tuple[tuple[Side, Side], ...]
    only_first: tuple[Side, ...] = ()
    only_second: tuple[Side, ...] = ()


def pair_sides(first: Sides, second: Sides) -> Pairs:
    """Pairs of equal model, method, data, fraction and seed.

    A field in which each side holds one value alone is what is compared, and pairs nothing; a base
    model has no data, fraction and seed, and stands against each. Two single results are a pair
    whatever they are.

    Raises:
        UsageError: several results of a side have the same place in the pairs.
    """
    sides = first.members, second.members
    if len(sides[0]) == len(sides[1]) == 1:
        return Pairs(((sides[0][0], sides[1][0]),))
    held = [{name: {getattr(one.key, name) for one in side} - {None} for name in PAIRED_BY}
            for side in sides]  # fmt: skip
    names = [name for name in PAIRED_BY if any(len(values[name]) > 1 for values in held)]
    for sides_of in (first, second):
        _check_apart(sides_of, names)
    pairs = [
        (one, other)
        for one in first.members
        for other in second.members
        if all(
            a == b or None in (a, b)
            for a, b in zip(one.key.part(*names), other.key.part(*names), strict=True)
        )
    ]
    left, right = ({id(pair[place]) for pair in pairs} for place in (0, 1))
    return Pairs(
        tuple(pairs),
        tuple(one for one in first.members if id(one) not in left),
        tuple(one for one in second.members if id(one) not in right),
    )


def pair_key(one: Side, other: Side) -> CellKey:
    """What tells a pair from the others: of a field that one side lacks, what the other has."""
    keys = one.key, other.key
    first, second = keys if keys[0].seed is not None else keys[::-1]
    values = zip(first.part(*PAIRED_BY), second.part(*PAIRED_BY), strict=True)
    return CellKey(*(theirs if ours is None else ours for ours, theirs in values))


def _check_apart(sides: Sides, names: Sequence[str]) -> None:
    known: dict[tuple[Any, ...], Side] = {}
    for one in sides.members:
        other = known.setdefault(one.key.part(*names), one)
        if other is not one:
            ids = f"{other.result.cell_id} and {one.result.cell_id}"
            raise UsageError(
                f"{shortened(sides.name)}: holds {other.label} and {one.label} ({ids}), of which "
                "one alone can stand in a pair; name the grid, as in GRID:method=lora, or add "
                "method=, data=, fraction= or model="
            )


def find_sides(name: str, *, runs_dir: Runs, tracking_uri: str | None) -> Sides:
    """The results that a name means: a group's (see `grid.cell_groups`), or one.

    Raises:
        UsageError, StorageError, TrackingError: as `find_side`; or no cell of a group has a result.
    """
    group = parse_group(name)
    if group is None:
        return Sides(name, (find_side(name, runs_dir=runs_dir, tracking_uri=tracking_uri),))
    return _group_sides(group, group_folders(group, runs_dir))


def _group_sides(group: CellGroup, folders: Iterable[tuple[Path, Mapping[str, Any]]]) -> Sides:
    members, left_out = [], []
    for folder, record in folders:
        label = stored_label(folder) or folder.name
        try:
            result = read_result(folder)
        except StorageError as unreadable:
            left_out.append(str(unreadable))
            continue
        if result is None or not result.scores:
            left_out.append(f"{label}: has no score yet")
        else:
            items = partial(items_path, folder)
            members.append(Side(label, str(folder), result, items, record))
    if not members:
        raise UsageError(f"{shortened(group.name)}: {left_out[0]}; run its grid first")
    return Sides(group.name, tuple(members), tuple(left_out))


def stored_sides(runs_dir: Path, folders: Mapping[str, Path]) -> Sides:
    """All results of a runs folder, whose cells' folders are given by id."""
    records = [(folder, _record(folder)) for folder in folders.values()]
    return _group_sides(CellGroup(str(runs_dir), None, {}), records)


def _record(folder: Path) -> dict[str, Any]:
    try:
        return read_json_object(folder / CELL_FILE)
    except Unreadable:
        return {}


def find_side(name: str, *, runs_dir: Runs, tracking_uri: str | None) -> Side:
    """The result that a name means.

    Args:
        name: a cell's, by the rule of `grid.selection`; or an MLflow run's id or name.
        runs_dir: where cells are kept.
        tracking_uri: where MLflow runs are looked for; None for the environment's or the default.

    Raises:
        UsageError: there is no such cell or run, or several, or it has no result.
        StorageError: its result cannot be read.
        TrackingError: MLflow, where it was named, does not answer.
    """
    try:
        folder = find_folder(name, runs_dir)
    except UnknownCell as unknown:
        return _tracked_side(name, unknown.labels, runs_dir, tracking_uri)
    result = read_result(folder)
    if result is None:
        raise UsageError(f"{name}: has no result yet in {folder}; run its grid first")
    label = stored_label(folder) or result.cell_id
    return Side(label, str(folder), result, partial(items_path, folder), _record(folder))


def _tracked_side(
    name: str, labels: Sequence[str], runs_dir: Runs, tracking_uri: str | None
) -> Side:
    from harness.tracking.address import resolve_uri
    from harness.tracking.lookup import RunLookup

    runs: list[str] = []
    problem = ""
    for folder in runs_folders(runs_dir):
        uri = resolve_uri(None, folder, tracking_uri)
        try:
            if uri is not None and (lookup := RunLookup(uri, folder)).exists():
                run = lookup.find(name)
                if run is not None:
                    place = f"MLflow run {run.run_id}"
                    return Side(run.label, place, run.result, partial(lookup.items_file, run))
                runs += lookup.names()
        except TrackingError as fault:
            if tracking_uri is not None:
                raise
            problem = f" ({fault})"
    hint = did_you_mean(name, dict.fromkeys([*labels, *runs]))
    said = f"no such cell in {runs_text(runs_dir)} and no such MLflow run{problem}{hint}"
    raise UsageError(f"{shortened(name)}: {said}")
