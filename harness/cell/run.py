"""One cell's life, from the base model to its scores: the only place where all the parts meet."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.memory import SmallerBudget
from harness.cell.settings import RunSettings
from harness.data.pins import training_note
from harness.errors import EvaluationError, ModelError, StorageError
from harness.export.model_card import CARD_FILE, model_card
from harness.grid.folders import (
    ADAPTER_FOLDER,
    CELL_FILE,
    LOG_FILE,
    cell_folder,
    items_path,
    locked,
)
from harness.grid.schema import Cell
from harness.grid.status import is_trained, missing_tasks
from harness.methods import METHODS
from harness.models.devices import free_memory, is_out_of_memory
from harness.records.environment import describe_environment, prepare_torch
from harness.records.events import CellEnded, CellStarted, Emit, Event, Scoring, Warned
from harness.records.files import write_frame, write_text
from harness.records.results import CellError, CellResult, read_result, write_result
from harness.training.signals import Stopped, handle_signals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.evaluation.tasks import TaskSpec
    from harness.models.loading import Base


def run_cell(cell: Cell, settings: RunSettings, emit: Emit) -> CellResult:
    """Does what is not done yet of a cell: trains it, saves it, scores it.

    Everything is stored as it comes: a killed run goes on from the last checkpoint or benchmark.

    Args:
        cell: what to do.
        settings: where.
        emit: told of every step.

    Returns:
        The cell's whole result, as stored in its folder.

    Raises:
        SmallerBudget: the memory is full, which is no failure: run the cell in a fresh process.
        Stopped: a signal asked for it; a training goes on from its checkpoint the next time.
        ZbenchError: what went wrong, in one line; it is stored in the folder too.
    """
    folder = cell_folder(settings.runs_dir, cell)
    start = time.monotonic()
    with locked(folder):
        try:
            result = _CellRun(cell, settings, folder, emit).finish()
        except SmallerBudget as fault:
            emit(Warned(cell.id, str(fault), restarts=True))
            raise
        except Exception as fault:
            record_failure(cell, folder, fault)
            emit(CellEnded(cell.id, str(folder), time.monotonic() - start, describe(fault)))
            raise
    emit(CellEnded(cell.id, str(folder), time.monotonic() - start))
    return result


def follow_cell(cell: Cell, settings: RunSettings) -> None:
    """Trains a cell with the process that runs it, and leaves the rest to that one.

    It writes nothing and tells nothing.

    Raises:
        ZbenchError: what went wrong, in one line.
    """
    from harness.cell.train import train_cell

    prepare_torch(settings.threads)
    folder = cell_folder(settings.runs_dir, cell)

    def say_nothing(event: Event) -> None:
        pass

    with handle_signals() as requests:
        train_cell(
            cell,
            settings,
            folder,
            load=_CellRun(cell, settings, folder, say_nothing)._base,
            start=lambda steps: None,
            emit=say_nothing,
            requests=requests,
        )


@dataclass(frozen=True)
class _CellRun:
    cell: Cell
    settings: RunSettings
    folder: Path
    emit: Emit

    def finish(self) -> CellResult:
        known = read_result(self.folder)
        missing = missing_tasks(self.cell, known, self.settings.data_root)
        trained = is_trained(self.cell, known)
        estimate = self.settings.estimates.get(self.cell.id, {})
        result = known or CellResult(self.cell.record(), self.cell.id, estimate=estimate)
        if trained and not missing:
            return result
        prepare_torch(self.settings.threads)
        record = self.cell.model_dump(mode="json", serialize_as_any=True)
        write_text(self.folder / CELL_FILE, json.dumps(record, indent=1) + "\n")
        if trained:
            self._emit_start(0)
            base, model = self._restore(result)
            result = replace(result, base=result.base or base.identity, error=None)
        else:
            base, model, result = self._train(result)
        return self._score(base, model, result, missing if trained else self.cell.tasks)

    def _base(self, known: CellResult | None = None) -> Base:
        """Loads the base model, in the precision that the cell already has results in."""
        from harness.evaluation.bos import bos_warning
        from harness.models.devices import resolve_precision
        from harness.models.loading import load_base

        setting = self.cell.train.precision if self.cell.train else "auto"
        if known is not None and known.base.get("precision"):
            setting = known.base["precision"]
        device = self.settings.device
        base = load_base(
            self.cell.model,
            data_root=self.settings.data_root,
            device=device,
            precision=resolve_precision(setting, device),
            quantization=self.cell.train.base_quantization if self.cell.train else None,
        )
        self._tell(bos_warning(base.tokenizer, base.model.config))
        return base

    def _train(self, result: CellResult) -> tuple[Base, PreTrainedModel, CellResult]:
        """Trains, saves what was trained, and stores the result without scores."""
        from harness.cell.train import finish_training, train_cell

        member = self.settings.member
        with handle_signals() as requests:
            trained = train_cell(
                self.cell,
                self.settings,
                self.folder,
                load=self._base,
                start=self._emit_start,
                emit=self.emit,
                requests=requests,
            )
            result = replace(
                result,
                train=trained.measured,
                base=trained.base.identity,
                scores=(),
                environment=describe_environment(self.settings.device)
                | ({"num_devices": str(member.size)} if member else {}),
                evaluation_seconds={},
                evaluation_environments={},
                error=None,
            )
            write_result(self.folder, result)
            finish_training(self.folder)
            if requests.stop:  # since the last step
                raise Stopped
        if trained.whole:
            return trained.base, trained.model, result
        # This process holds one part of the model: it is let go for the whole one.
        del trained
        free_memory(self.settings.device)
        return *self._restore(result), result

    def _restore(self, result: CellResult) -> tuple[Base, PreTrainedModel]:
        """Loads the base and puts what was trained on it."""
        from harness.models.loading import load_trained

        base = self._base(result)
        _check_same_base(self.cell, result, base)
        model = METHODS[self.cell.method].apply(base.model, self.cell.options, self.cell.seed or 0)
        if self.cell.train is not None:
            load_trained(model, self.folder / ADAPTER_FOLDER)
        return base, model

    def _score(
        self, base: Base, model: PreTrainedModel, result: CellResult, tasks: Sequence[TaskSpec]
    ) -> CellResult:
        """Scores the tasks group by group, storing each with its per-item records."""
        from harness.evaluation import evaluate_together
        from harness.evaluation.tasks import scored_together

        environment = describe_environment(self.settings.device)
        content = result.train.data_content_sha256 if result.train else None
        if self.cell.train is None:
            result = replace(result, environment=environment)
        for group in scored_together(tasks):
            start, name = time.monotonic(), "+".join(task.name for task in group)
            try:
                outcomes = evaluate_together(
                    model,
                    base.tokenizer,
                    group,
                    data_root=self.settings.data_root,
                    precision=base.identity["precision"],
                    on_progress=lambda done, total, name=name: self.emit(  # type: ignore[misc]
                        Scoring(self.cell.id, name, done, total)
                    ),
                )
            except Exception as fault:
                if is_out_of_memory(fault):
                    raise EvaluationError(_memory_full_in_scoring(name)) from fault
                raise
            seconds = (time.monotonic() - start) / len(group)
            for task, outcome in zip(group, outcomes, strict=True):
                key = outcome.scores[0].key
                write_frame(items_path(self.folder, task.name, key), outcome.items)
                result = result.with_scores(outcome.scores, seconds, environment)
                result = result.with_note(training_note(self.cell.data.source, content))
                write_result(self.folder, result)
                for warning in outcome.warnings:
                    self._tell(f"{task.name}: {warning}")
        if self.cell.train is not None:
            card = model_card(self.cell, result)
            write_text(self.folder / ADAPTER_FOLDER / CARD_FILE, card)
        return result

    def _tell(self, warning: str | None) -> None:
        if warning is not None:
            self.emit(Warned(self.cell.id, warning))

    def _emit_start(self, total_steps: int) -> None:
        now = time.time_ns() // 1_000_000
        self.emit(CellStarted(self.cell.id, self.cell.label, total_steps, now))


def _check_same_base(cell: Cell, result: CellResult, base: Base) -> None:
    """Refuses to put trained tensors on other weights than those they were trained with."""
    for key in ("weights_sha256", "commit", "tokenizer_sha256"):
        then, now = result.base.get(key), base.identity.get(key)
        if then is not None and now is not None and then != now:
            raise ModelError(
                f"{cell.label}: the base model has changed since the cell was made ({key} was "
                f"{str(then)[:12]}, is {str(now)[:12]}); bring it back, or give another --runs-dir"
            )


def _memory_full_in_scoring(name: str) -> str:
    return (
        f"{name}: the memory is full with the smallest batches of requests; what is trained and "
        "scored is kept: free the GPU of other processes, or take a larger one, and run the same "
        "command again"
    )


def describe(fault: BaseException) -> str:
    """Returns the first line of an error's message, with its type where it is not zbench's own."""
    from harness.errors import ZbenchError

    if is_out_of_memory(fault):
        return (
            "the memory is full before a step is taken; free it of other processes, or take a "
            "larger GPU"
        )
    lines = str(fault).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(fault, ZbenchError) else f"{type(fault).__name__}: {text}"


def record_failure(cell: Cell, folder: Path, fault: BaseException) -> None:
    """Stores why a cell failed beside what it already has; says nothing where even that fails."""
    try:
        result = read_result(folder) or CellResult(cell=cell.record(), cell_id=cell.id)
        error = CellError(type=type(fault).__name__, message=describe(fault), log=LOG_FILE)
        write_result(folder, replace(result, error=error))
    except StorageError:
        pass  # the disk is full or gone: the error itself still reaches the user
