"""What is checked of a grid: its combinations as it is read, and its local data before it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data.pins import training_mismatch
from harness.data.sets import inspect_data, num_examples
from harness.data.spec import DataSpec, data_file
from harness.demo.world import world_folder
from harness.errors import MethodError, UsageError, ZbenchError, did_you_mean
from harness.evaluation.data_versions import local_mismatches
from harness.evaluation.tasks import TaskSpec, check_items
from harness.grid.schema import Cell, GridSpec, expand
from harness.methods import METHODS, check_options

DATA_ROOT_VARIABLE = "ZBENCH_DATA_ROOT"


def combination_faults(grid: GridSpec) -> Iterator[str]:
    """Yields one line per fault: twins, options that do not fit a model, labels used twice."""
    yield from _twins(grid)
    labels: dict[str, Cell] = {}
    for cell in expand(grid):
        try:
            check_options(METHODS[cell.method], cell.options, cell.model.shape)
            _check_quantization(cell)
        except MethodError as misfit:
            yield f"{cell.model_name} with {cell.method_label}: {misfit}"
        if labels.setdefault(cell.label, cell).id != cell.id:
            yield (
                f"two different cells are called '{cell.label}'; give one of the methods a `label`"
            )
        if (fault := fraction_fault(cell, grid.data.num_rows)) is not None:
            yield fault


def _twins(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every pair of labels that stand for the same cells."""
    labels: dict[str, str] = {}
    for choice in (choice for block in grid.blocks for choice in block.methods):
        meaning = choice.model_dump_json(exclude={"label"}, serialize_as_any=True)
        other = labels.setdefault(meaning, choice.label)
        if other != choice.label:
            yield f"methods '{other}' and '{choice.label}' have the same settings; keep one"


def _check_quantization(cell: Cell) -> None:
    """Checks that there is something frozen to quantise, without loading anything.

    Raises:
        MethodError: every parameter is trained.
    """
    if cell.train is None or cell.train.base_quantization is None:
        return
    method, shape = METHODS[cell.method], cell.model.shape
    if method.count_parameters(shape, cell.options) == shape.num_parameters:
        raise MethodError(
            f"train.base_quantization: nothing is frozen in '{method.name}'; leave it out"
        )


def fraction_fault(cell: Cell, num_rows: int | None) -> str | None:
    """Why a cell's fraction selects no example, as far as the data's size is known."""
    if num_rows is None or cell.fraction is None or num_examples(cell.fraction, num_rows) > 0:
        return None
    return (
        f"fraction {cell.fraction:g} of {num_rows} rows selects no example; it must be more than "
        f"{0.5 / num_rows:.2g}"
    )


def resolve_data_root(grid: GridSpec, option: Path | None, runs_dir: Path) -> Path | None:
    """The data root: the option's, else that of the environment, else the embedded world's.

    Raises:
        UsageError: the folder that was named is not there.
    """
    if option is None and grid.world is not None:
        return world_folder(runs_dir)
    if option is None and (named := os.environ.get(DATA_ROOT_VARIABLE)):
        option = Path(named)
    if option is not None and not option.is_dir():
        raise UsageError(f"--data-root {option}: no such folder")
    return option and option.resolve()


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

    Raises:
        UsageError: there are some, and `allow` is not set.
    """
    found: dict[str, None] = {}
    for spec in dict.fromkeys(cell.data for cell in cells if cell.train is not None):
        file = data_file(spec, data_root)
        with contextlib.suppress(ZbenchError):
            other = None if file is None else training_mismatch(spec.source, file)
            found |= {} if other is None else {str(other): None}
    for task in dict.fromkeys(task for cell in cells for task in cell.tasks):
        if task.benchmark.hub is None or data_root is None:
            continue  # on no hub, as the embedded world: nobody's data set, so that it has no pin
        with contextlib.suppress(ZbenchError):
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
    file = data_file(data, data_root)
    if file is not None and not file.exists():
        return f"data.path: no file {file}{_near(file)}"
    try:
        inspect_data(data, data_root)
    except ZbenchError as fault:
        return str(fault)
    return None


def _items_fault(task: TaskSpec, data_root: Path | None) -> str | None:
    if data_root is not None:
        try:
            check_items(task, data_root)
        except ZbenchError as fault:
            return str(fault)
    return None


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir())[:20])
