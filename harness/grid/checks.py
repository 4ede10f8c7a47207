"""What is checked of a grid before it runs: local files, their versions, fractions of the data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.data.instructions import DataSpec
from harness.data.pins import training_mismatch
from harness.demo.world import world_folder
from harness.errors import DataError, UsageError, did_you_mean
from harness.evaluation.data_versions import local_mismatches
from harness.evaluation.tasks import TaskSpec, local_files
from harness.grid.combinations import fraction_fault
from harness.grid.schema import Cell, GridSpec

DATA_ROOT_VARIABLE = "ZBENCH_DATA_ROOT"


def resolve_data_root(grid: GridSpec, option: Path | None, runs_dir: Path) -> Path | None:
    """The data root: the option's, else that of the environment, else the embedded world's.

    Raises:
        UsageError: the folder that was named is not there.
    """
    named = option
    if named is None and grid.world is None and os.environ.get(DATA_ROOT_VARIABLE):
        named = Path(os.environ[DATA_ROOT_VARIABLE])
    if named is not None:
        if not named.is_dir():
            raise UsageError(f"--data-root {named}: no such folder")
        return named.resolve()
    if grid.world == "demo":
        return world_folder(runs_dir)
    return None


def check_sources(cells: Iterable[Cell], data_root: Path | None) -> None:
    """Checks that the local files that cells read are there, before anything runs.

    Raises:
        UsageError: every missing file, one a line, with the cells' part that needs it.
    """
    cells = list(cells)
    models = dict.fromkeys((cell.model_name, cell.model.path, cell.model.source) for cell in cells)
    data = dict.fromkeys(cell.data for cell in cells if cell.train is not None)
    tasks = dict.fromkeys(task for cell in cells for task in cell.tasks)
    faults = [
        *(_model_fault(*model, data_root) for model in models),
        *(_data_fault(spec, data_root) for spec in data),
        *(_items_fault(task, data_root) for task in tasks),
    ]
    found = dict.fromkeys(fault for fault in faults if fault is not None)
    if found:
        raise UsageError("\n".join(found))


def check_data_versions(cells: Iterable[Cell], data_root: Path | None, *, allow: bool) -> list[str]:
    """The local data sets that are not the pinned version, one line each.

    What a cell trains on counts where the grid says that it is a copy of a pinned data set. A file
    that cannot be read counts as none: the run itself tells what is wrong with it.

    Args:
        cells: what is to run.
        data_root: the folder of local data; None where the hub is read.
        allow: whether they are returned; else they are refused.

    Raises:
        UsageError: there are some, and `allow` is not set.
    """
    if data_root is None:
        return []
    found: dict[str, None] = {}
    training = {(c.data.source, c.data.path) for c in cells if c.train is not None and c.data.path}
    for source, path in sorted(training, key=str):
        with contextlib.suppress(DataError):
            other = training_mismatch(source, data_root / str(path))
            found |= {} if other is None else {str(other): None}
    for task in dict.fromkeys(task for cell in cells for task in cell.tasks):
        if task.benchmark.hub is None:
            continue  # on no hub, as the embedded world: nobody's data set, so that it has no pin
        with contextlib.suppress(DataError):
            found |= dict.fromkeys(map(str, local_mismatches(task, data_root)))
    if found and not allow:
        advice = (
            "bring that version, or give --allow-data-mismatch: the note then stands with every "
            "score"
        )
        raise UsageError("\n".join(f"{fault}; {advice}" for fault in found))
    return [f"{fault}; scores made with it say so" for fault in found]


def check_fractions(cells: Iterable[Cell], rows: int | None) -> None:
    """Checks that every fraction selects an example, as far as the data's size is known.

    Raises:
        UsageError: one does not.
    """
    for cell in cells:
        if (fault := fraction_fault(cell, rows)) is not None:
            raise UsageError(f"{cell.label}: {fault}")


_PLACE = "--data-root names the folder of local data and models"


def _model_fault(
    name: str, path: str | None, source: str | None, data_root: Path | None
) -> str | None:
    if path is None or (data_root is None and source is not None and not Path(path).is_absolute()):
        return None  # the hub is read
    if data_root is None and not Path(path).is_absolute():
        return f"models.{name}.path: {path} is relative; {_PLACE}"
    folder = (data_root or Path()) / path  # an absolute path stays as it is
    return None if folder.is_dir() else f"models.{name}.path: no folder {folder}{_near(folder)}"


def _data_fault(data: DataSpec, data_root: Path | None) -> str | None:
    if data_root is None:
        relative = f"data.path: {data.path} is relative; {_PLACE}"
        return relative if data.source is None else None
    if data.path is None or (data_root / data.path).is_file():
        return None
    return f"data.path: no file {data_root / data.path}{_near(data_root / data.path)}"


def _items_fault(task: TaskSpec, data_root: Path | None) -> str | None:
    if data_root is not None:
        try:
            local_files(task, data_root)
        except DataError as fault:
            return str(fault)
    return None


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir())[:20])
