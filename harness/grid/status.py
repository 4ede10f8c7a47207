"""What is done, to do, running or failed: read from the cells' folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import StorageError, ZbenchError
from harness.evaluation.tasks import TaskSpec, data_fingerprint, request_key
from harness.grid.folders import cell_folder, is_running
from harness.grid.schema import Cell
from harness.models.checkpoint import local_folder
from harness.records.files import known_sha256_of_file, known_sha256_of_files
from harness.records.results import CellResult, read_result

Status = Literal["done", "to do", "running", "failed", "stale"]
"""`stale`: what it was made from has changed since; nothing of it is re-used."""


@dataclass(frozen=True)
class CellState:
    """A cell and how far it is."""

    cell: Cell
    folder: Path
    result: CellResult | None
    status: Status
    missing: tuple[TaskSpec, ...]
    """Benchmarks without a score."""
    fault: str | None = None
    """Why it failed or is stale, in one line."""

    @property
    def trained(self) -> bool:
        """Whether nothing is left to train."""
        return is_trained(self.cell, self.result)


def is_trained(cell: Cell, result: CellResult | None) -> bool:
    """Returns whether nothing is left to train for `cell`."""
    return cell.train is None or (result is not None and result.train is not None)


def missing_tasks(
    cell: Cell, result: CellResult | None, data_root: Path | None
) -> tuple[TaskSpec, ...]:
    """Returns the tasks of `cell` that have no score.

    A score counts when it answers the same request on the same items; the items are compared
    where the data root holds them.
    """
    if result is None:
        return cell.tasks
    have = {(score.key, score.data_sha256) for score in result.scores}
    keys = {key for key, _ in have}
    missing = []
    for task in cell.tasks:
        key = request_key(task)
        items = data_fingerprint(task, data_root) if key in keys else None
        if key not in keys or (items is not None and (key, items) not in have):
            missing.append(task)
    return tuple(missing)


def read_state(cell: Cell, *, runs_dir: Path, data_root: Path | None) -> CellState:
    """Returns how far a cell is; a result that cannot be read is a failure of that cell alone."""
    folder = cell_folder(runs_dir, cell)
    try:
        result = read_result(folder)
    except StorageError as unreadable:
        return CellState(cell, folder, None, "failed", cell.tasks, str(unreadable))
    try:
        missing = missing_tasks(cell, result, data_root)
    except ZbenchError:
        missing = cell.tasks  # its data is unreadable: the run itself tells what is wrong
    stale = None if result is None else changed_input(cell, result, data_root)
    status: Status = "to do"
    fault = result.error.message if result is not None and result.error is not None else None
    if stale is not None:
        status, fault = "stale", stale
    elif is_trained(cell, result) and not missing:
        status = "done"
    elif is_running(folder):
        status = "running"
    elif fault is not None:
        status = "failed"
    return CellState(cell, folder, result, status, missing, fault)


def changed_input(cell: Cell, result: CellResult, data_root: Path | None) -> str | None:
    """Returns what a result was made from that is no longer the same, or None.

    A cell's id names its data and its model; this compares the content of the local files with
    what was used, where that takes no long reading.
    """
    folder = local_folder(cell.model, data_root)
    then = result.base.get("weights_sha256")
    if folder is not None and then is not None:
        now = known_sha256_of_files(sorted(folder.glob("*.safetensors")))
        if now not in (None, then):
            return _changed(cell, f"the weights in {folder}", then, now)
    data = None if data_root is None or cell.data.path is None else data_root / cell.data.path
    then = result.train.data_file_sha256 if result.train is not None else None
    if data is not None and then is not None:
        now = known_sha256_of_file(data)
        if now not in (None, then):
            return _changed(cell, str(data), then, now)
    return None


def _changed(cell: Cell, what: str, then: str, now: str | None) -> str:
    return (
        f"{cell.label}: {what} changed since the cell was made (SHA-256 {then[:12]}, now "
        f"{str(now)[:12]}); bring back what was used, or give another --runs-dir"
    )


def read_states(
    cells: Sequence[Cell], *, runs_dir: Path, data_root: Path | None
) -> list[CellState]:
    """Returns how far each cell is, in the order given."""
    return [read_state(cell, runs_dir=runs_dir, data_root=data_root) for cell in cells]
