"""What a grid comes to before it runs: examples, steps, rates, parameters; and what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from harness.data.instructions import DataSpec
from harness.data.pins import training_mismatch
from harness.demo.world import world_folder
from harness.errors import DataError, UsageError, did_you_mean
from harness.evaluation.data_versions import local_mismatches
from harness.evaluation.tasks import local_files
from harness.grid.schema import Cell, GridSpec

DATA_ROOT_VARIABLE = "ZBENCH_DATA_ROOT"


def count_rows(data: DataSpec, data_root: Path | None) -> int | None:
    """Returns the size of the training data: as stated, or read from the local file's footer."""
    if data.num_rows is not None:
        return data.num_rows
    if data_root is None or data.path is None or not (data_root / data.path).is_file():
        return None
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(data_root / data.path).num_rows)
    except Exception:
        return None  # the run itself tells what is wrong with the file


def resolve_data_root(grid: GridSpec, option: Path | None, runs_dir: Path) -> Path | None:
    """Returns the data root: the option's, else that of the environment, else the embedded world's.

    Raises:
        UsageError: the folder that was named is not there.
    """
    import os

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
    faults: dict[str, None] = {}
    for cell in cells:
        faults |= dict.fromkeys(_missing_files(cell, data_root))
    if faults:
        raise UsageError("\n".join(faults))


def check_data_versions(cells: Iterable[Cell], data_root: Path | None, *, allow: bool) -> list[str]:
    """Returns the local data sets that are not the pinned version, one line each.

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
        if rows is not None and cell.fraction is not None and round(cell.fraction * rows) < 1:
            raise UsageError(
                f"{cell.label}: fraction {cell.fraction:g} of {rows} rows selects no example; it "
                f"must be more than {0.5 / rows:.2g}"
            )


def _missing_files(cell: Cell, data_root: Path | None) -> list[str]:
    faults = []
    place = "--data-root names the folder of local data and models"
    model = cell.model
    if model.path is not None:
        folder = Path(model.path)
        if not folder.is_absolute() and data_root is None and model.source is None:
            faults.append(f"models.{cell.model_name}.path: {folder} is relative; {place}")
        elif not folder.is_absolute() and data_root is not None:
            folder = data_root / folder
            if not folder.is_dir():
                faults.append(f"models.{cell.model_name}.path: no folder {folder}{_near(folder)}")
        elif folder.is_absolute() and not folder.is_dir():
            faults.append(f"models.{cell.model_name}.path: no folder {folder}{_near(folder)}")
    data = cell.data
    if cell.train is not None:
        if data_root is None and data.source is None:
            faults.append(f"data.path: {data.path} is relative; {place}")
        elif data_root is not None and data.path and not (data_root / data.path).is_file():
            faults.append(
                f"data.path: no file {data_root / data.path}{_near(data_root / data.path)}"
            )
    if data_root is not None:
        for task in cell.tasks:
            try:
                local_files(task, data_root)
            except DataError as fault:
                faults.append(str(fault))
    return faults


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir())[:20])
