"""The status of each cell, in order of precedence: stale > done > running > failed > to do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from harness.data.places import data_files, known_sha256_of_data
from harness.data.sets import content_of
from harness.data.spec import DataSpec, data_file
from harness.data.template_choice import jinja_sha256
from harness.data.templates import chosen_chat_template
from harness.data.validation import validation_set
from harness.errors import StorageError, ZbenchError
from harness.evaluation.shown import Items, items_under, shown_result
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.cell_files import file_faults, whole_scores
from harness.grid.folders import Runs, cell_folder, cell_folders, id_of
from harness.grid.locks import is_running
from harness.grid.schema import Cell
from harness.models.checkpoint import ModelSpec, local_folder
from harness.models.plain_tokenizer import chat_templates
from harness.records.files import known_sha256_of_files
from harness.records.results import CellResult, TrainResult, read_result
from harness.records.scores import TaskScore

Key = TypeVar("Key")
Value = TypeVar("Value")
Status = Literal["done", "to do", "running", "failed", "stale", "pruned"]
"""`stale`: what it was made from has changed since; nothing of it is re-used. `pruned`: the trial
of a tuning was stopped early; nothing is left to do."""


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
    lock_fault: str | None = None
    """Why nobody knows whether it is running, in one line."""
    damaged: tuple[str, ...] = ()
    """What is wrong with its files beside the result, one line each."""
    chosen: CellResult | None = None
    """The result with the scores that are shown; None where no choice was made."""

    @property
    def shown(self) -> CellResult | None:
        """The result with one evaluation of each request: see `harness.evaluation.shown`."""
        return self.chosen or self.result

    @property
    def trained(self) -> bool:
        """Whether nothing is left to train."""
        return is_trained(self.cell, self.result)


def is_trained(cell: Cell, result: CellResult | None) -> bool:
    """Whether nothing is left to train for `cell`."""
    return cell.train is None or (result is not None and result.train is not None)


def _once(find: Callable[[Key], Value]) -> Callable[[Key], Value]:
    """The function, asked once for equal specs; of thousands of cells most share one object, which
    is known without its hash."""
    of_equal = cache(find)
    known: dict[int, tuple[Key, Value]] = {}

    def found(key: Key) -> Value:
        if (one := known.get(id(key))) is None:
            one = known[id(key)] = (key, of_equal(key))  # kept with it: no other has its id then
        return one[1]

    return found


class LocalInputs:
    """What the local files hold that cells read; each is looked up once, whatever the cells."""

    def __init__(self, data_root: Path | None) -> None:
        self.data_root = data_root
        self._request_key = _once(request_key)
        self._items = _once(self._find_items)
        self._weights = _once(self._find_weights)
        self._chat = _once(self._find_chat_template)
        self._data = _once(self._find_data)
        self._content = _once(self._find_content)

    def missing_tasks(self, cell: Cell, result: CellResult | None) -> tuple[TaskSpec, ...]:
        """The tasks of `cell` that have no score.

        A score counts when it answers the same request on the same items; the items are compared
        where the data root holds them.
        """
        if result is None:
            return cell.tasks
        by_key: dict[str, list[TaskScore]] = {}
        for score in result.scores:
            by_key.setdefault(score.key, []).append(score)
        missing = []
        for task in cell.tasks:
            scores = by_key.get(self._request_key(task))
            items = self._items(task) if scores else None
            if not scores or (items is not None and not any(map(items.answer, scores))):
                missing.append(task)
        return tuple(missing)

    def shown(self, cell: Cell, result: CellResult) -> CellResult:
        """The result with one evaluation of each request: see `harness.evaluation.shown`."""
        return shown_result(result, cell.tasks, self._items)

    def changed_input(self, cell: Cell, result: CellResult) -> str | None:
        """What a result was made from that is no longer the same, in one line, or None.

        A cell's id names its model and a hub's data; this compares the content of the local files
        with what was used, only if cheap: small or already hashed files; else not compared.
        """
        weights = result.base.get("weights_sha256")
        if weights is not None:
            what, now = self._weights(cell.model)
            if now not in (None, weights):
                return _changed(cell, what, weights, now)
        chat = result.train and result.train.chat_template_sha256
        if chat:
            what, now = self._chat(cell.model)
            if now not in (None, chat):
                return _changed(cell, what, chat, now)
        return self._changed_data(cell, result.train)

    def _changed_data(self, cell: Cell, train: TrainResult | None) -> str | None:
        if train is None:
            return None
        if (other := self._changed_validation(cell, train)) is not None:
            return other
        what, now = self._data(cell.data)
        if now in (None, train.data_file_sha256):
            return None
        if train.data_content_sha256 is None:  # of an older version, which kept the file's alone
            then = train.data_file_sha256
            return None if then is None else _changed(cell, what, then, now)
        content = self._content(cell.data)
        if content in (None, train.data_content_sha256):
            return None
        return _changed(cell, what, train.data_content_sha256, content)

    def _changed_validation(self, cell: Cell, train: TrainResult) -> str | None:
        """The same of validation rows in a file, which the id names; a share is of the data."""
        held_out, then = cell.data.validation, train.validation_sha256
        if held_out is None or held_out.fraction is not None or then is None:
            return None
        now = self._content(validation_set(cell.data))
        return None if now in (None, then) else _changed(cell, "the validation rows", then, now)

    def _find_items(self, task: TaskSpec) -> Items | None:
        return items_under(task, self.data_root)

    def _find_weights(self, model: ModelSpec) -> tuple[str, str | None]:
        folder = local_folder(model, self.data_root)
        files = [] if folder is None else sorted(folder.glob("*.safetensors"))
        return f"the weights in {folder}", known_sha256_of_files(files)

    def _find_chat_template(self, model: ModelSpec) -> tuple[str, str | None]:
        folder = local_folder(model, self.data_root)
        if folder is None or not folder.is_dir():
            return "", None
        try:
            source = chosen_chat_template(chat_templates(folder), str(folder))
        except ZbenchError:  # the run itself tells what is wrong with it
            return "", None
        return f"the chat template in {folder}", jinja_sha256(source)

    def _find_data(self, data: DataSpec) -> tuple[str, str | None]:
        place = str(data_file(data, self.data_root))
        try:
            return place, known_sha256_of_data(data_files(data, self.data_root))
        except ZbenchError:  # the run itself tells what is wrong with it
            return place, None

    def _find_content(self, data: DataSpec) -> str | None:
        """The content of a local file's rows; None where it cannot be read."""
        try:
            return content_of(data, self.data_root)
        except ZbenchError:  # the run itself tells what is wrong with it
            return None


def _changed(cell: Cell, what: str, then: str, now: str | None) -> str:
    return (
        f"{cell.label}: {what} changed since the cell was made (SHA-256 was {then[:12]}, "
        f"is {str(now)[:12]}); bring back what was used, or give another --runs-dir"
    )


def read_states(
    cells: Sequence[Cell], *, runs_dir: Runs, data_root: Path | None, thorough: bool = True
) -> list[CellState]:
    """How far each cell is, in the order given; for `thorough` see `cell_files.file_faults`."""
    folders, inputs = cell_folders(runs_dir), LocalInputs(data_root)
    collects = gc.isenabled()
    gc.disable()  # garbage collections over the many records took half of the time
    try:
        return [
            _read_state(cell, cell_folder(runs_dir, cell, folders), inputs, thorough)
            for cell in cells
        ]
    finally:
        if collects:
            gc.enable()


def _read_state(cell: Cell, folder: Path, inputs: LocalInputs, thorough: bool) -> CellState:
    """How far a cell is; a result that cannot be read is a failure of that cell alone."""
    try:
        result = read_result(folder, id_of(folder))
    except StorageError as unreadable:
        return CellState(cell, folder, None, "failed", cell.tasks, str(unreadable))
    faults = {} if result is None else file_faults(folder, result, thorough=thorough)
    whole = None if result is None else whole_scores(result, faults)
    missing = inputs.missing_tasks(cell, whole)
    shown = None if result is None else inputs.shown(cell, result)
    stale = None if result is None else inputs.changed_input(cell, result)
    status: Status = "to do"
    fault = result.error.message if result is not None and result.error is not None else None
    running, lock_fault = False, None
    if stale is not None:
        status, fault = "stale", stale
    elif is_trained(cell, result) and not missing:
        status = "done"
    else:
        running, lock_fault = _is_running(folder)
    if running:
        status = "running"
    elif status == "to do" and fault is not None:
        status = "failed"
    damaged = tuple(map(str, faults.values()))
    return CellState(cell, folder, result, status, missing, fault, lock_fault, damaged, shown)


def _is_running(folder: Path) -> tuple[bool, str | None]:
    """Whether a cell is running, and why that cannot be known, if so."""
    try:
        return is_running(folder), None
    except StorageError as unknown:
        return False, str(unknown)
