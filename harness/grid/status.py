"""The status of each cell, in order of precedence: stale > done > running > failed > to do."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from harness.data.sets import DataSpec
from harness.errors import StorageError, ZbenchError
from harness.evaluation.tasks import TaskSpec, data_fingerprint, request_key
from harness.grid.folders import cell_folder, cell_folders, is_running
from harness.grid.schema import Cell
from harness.models.checkpoint import ModelSpec, local_folder
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
    """Whether nothing is left to train for `cell`."""
    return cell.train is None or (result is not None and result.train is not None)


class LocalInputs:
    """Hashes of the local files that cells read; each is looked up once, whatever the cells."""

    def __init__(self, data_root: Path | None) -> None:
        self.data_root = data_root
        self._request_key = cache(request_key)
        self._items_sha256 = cache(lambda task: data_fingerprint(task, data_root))
        self._weights = cache(self._find_weights)
        self._data = cache(self._find_data)

    def missing_tasks(self, cell: Cell, result: CellResult | None) -> tuple[TaskSpec, ...]:
        """The tasks of `cell` that have no score.

        A score counts when it answers the same request on the same items; the items are compared
        where the data root holds them.

        Raises:
            DataError: a local file of items is missing.
        """
        if result is None:
            return cell.tasks
        have = {(score.key, score.data_sha256) for score in result.scores}
        keys = {key for key, _ in have}
        missing = []
        for task in cell.tasks:
            key = self._request_key(task)
            items = self._items_sha256(task) if key in keys else None
            if key not in keys or (items is not None and (key, items) not in have):
                missing.append(task)
        return tuple(missing)

    def changed_input(self, cell: Cell, result: CellResult) -> str | None:
        """What a result was made from that is no longer the same, in one line, or None.

        A cell's id names its data and its model; this compares the content of the local files with
        what was used, only if cheap: small or already hashed files; else not compared.
        """
        weights = result.base.get("weights_sha256")
        data = None if result.train is None else result.train.data_file_sha256
        used = ((weights, self._weights, cell.model), (data, self._data, cell.data))
        for then, find, spec in used:
            if then is None:
                continue
            what, now = find(spec)
            if now not in (None, then):
                return (
                    f"{cell.label}: {what} changed since the cell was made (SHA-256 {then[:12]}, "
                    f"now {now[:12]}); bring back what was used, or give another --runs-dir"
                )
        return None

    def _find_weights(self, model: ModelSpec) -> tuple[str, str | None]:
        folder = local_folder(model, self.data_root)
        files = [] if folder is None else sorted(folder.glob("*.safetensors"))
        return f"the weights in {folder}", known_sha256_of_files(files)

    def _find_data(self, data: DataSpec) -> tuple[str, str | None]:
        if self.data_root is None or data.path is None:
            return "", None
        return str(self.data_root / data.path), known_sha256_of_file(self.data_root / data.path)


def read_states(
    cells: Sequence[Cell], *, runs_dir: Path, data_root: Path | None
) -> list[CellState]:
    """How far each cell is, in the order given."""
    folders, inputs = cell_folders(runs_dir), LocalInputs(data_root)
    collects = gc.isenabled()
    gc.disable()  # garbage collections over the many records took half of the time
    try:
        return [_read_state(cell, cell_folder(runs_dir, cell, folders), inputs) for cell in cells]
    finally:
        if collects:
            gc.enable()


def _read_state(cell: Cell, folder: Path, inputs: LocalInputs) -> CellState:
    """How far a cell is; a result that cannot be read is a failure of that cell alone."""
    try:
        result = read_result(folder)
    except StorageError as unreadable:
        return CellState(cell, folder, None, "failed", cell.tasks, str(unreadable))
    try:
        missing = inputs.missing_tasks(cell, result)
    except ZbenchError:
        missing = cell.tasks  # its data is unreadable: the run itself tells what is wrong
    stale = None if result is None else inputs.changed_input(cell, result)
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
