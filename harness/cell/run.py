"""One cell's life, from the base model to its scores: the only place where all the parts meet."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.memory import SmallerBudget, check_memory
from harness.cell.score import score_cell
from harness.cell.settings import CellRun, RunSettings
from harness.data.pins import training_note
from harness.errors import ModelError, StorageError, ZbenchError
from harness.export.model_card import CARD_FILE, model_card
from harness.grid.folders import (
    ADAPTER_FOLDER,
    CELL_FILE,
    CHECKPOINTS_FOLDER,
    LOG_FILE,
    cell_folder,
    locked,
)
from harness.grid.schema import Cell
from harness.grid.status import LocalInputs, is_trained
from harness.methods import METHODS
from harness.models.devices import free_memory, is_out_of_memory
from harness.records.environment import describe_environment, prepare_torch
from harness.records.events import CellEnded, CellStarted, Emit, Warned
from harness.records.files import write_text
from harness.records.results import CellError, CellResult, read_result, write_result
from harness.training.signals import SignalFlags, Stopped, handle_signals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.cell.train import Trained
    from harness.models.loading import Base


def run_cell(cell: Cell, settings: RunSettings, emit: Emit) -> CellResult:
    """Trains, saves and scores a cell, as far as that is not done yet; returns its whole result.

    Everything is stored as it comes: a killed run resumes from the last checkpoint or benchmark.
    `emit` gets an event for every step.

    Raises:
        SmallerBudget: out of memory, which is no failure: run the cell in a fresh process.
        Stopped: a signal asked for it; a training resumes from its checkpoint the next time.
        ZbenchError: what went wrong, in one line; it is stored in the folder too.
    """
    run = CellRun(cell, settings, cell_folder(settings.runs_dir, cell), emit)
    with locked(run.folder), _failures_recorded(run):
        estimate = settings.estimates.get(cell.id, {})
        result = read_result(run.folder) or CellResult(cell.record(), cell.id, estimate=estimate)
        trained = is_trained(cell, result)
        inputs = LocalInputs(settings.data_root)
        tasks = inputs.missing_tasks(cell, result) if trained else cell.tasks
        if trained and not tasks:
            return result
        prepare_torch(settings.threads)
        record = cell.model_dump(mode="json", serialize_as_any=True)
        write_text(run.folder / CELL_FILE, json.dumps(record, indent=1) + "\n")
        if trained:
            _emit_start(run, 0)
            base, model = _load_trained(run, result)
            result = replace(result, base=result.base or base.identity, error=None)
        else:
            from harness.cell.train import save_training

            with handle_signals() as flags:
                base, model, training = _train(run, flags)
                result = CellResult(
                    cell=result.cell,
                    cell_id=cell.id,
                    train=save_training(run, model, training),
                    base=base.identity,
                    environment=_environment(settings),
                    estimate=result.estimate,
                )
                write_result(run.folder, result)
                shutil.rmtree(run.folder / CHECKPOINTS_FOLDER, ignore_errors=True)
                if flags.stop:  # since the last step
                    raise Stopped
            if training.gathered is not None:  # the model here is a shard: load the whole one
                del base, model, training
                free_memory(settings.device)
                base, model = _load_trained(run, result)
        result = score_cell(run, base, model, tasks, result)
        if cell.train is not None:
            write_text(run.folder / ADAPTER_FOLDER / CARD_FILE, model_card(cell, result))
        return result


def follow_cell(cell: Cell, settings: RunSettings) -> None:
    """Trains a cell with the rank that runs it; saves, scores and emits nothing.

    Raises:
        ZbenchError: what went wrong, in one line.
    """
    prepare_torch(settings.threads)
    run = CellRun(cell, settings, cell_folder(settings.runs_dir, cell), emit=lambda event: None)
    with handle_signals() as flags:
        _train(run, flags)


@contextlib.contextmanager
def _failures_recorded(run: CellRun) -> Iterator[None]:
    """Emits how the cell ended; stores why it failed."""
    start = time.monotonic()

    def emit_end(error: str | None) -> None:
        run.emit(CellEnded(run.cell.id, str(run.folder), time.monotonic() - start, error))

    try:
        yield
    except SmallerBudget as fault:
        run.emit(Warned(run.cell.id, str(fault), restarts=True))
        raise
    except Exception as fault:
        record_failure(run.cell, run.folder, fault)
        emit_end(describe(fault))
        raise
    emit_end(None)


def _train(run: CellRun, flags: SignalFlags) -> tuple[Base, PreTrainedModel, Trained]:
    """Trains the method on a freshly loaded base; data and memory are checked before that."""
    from harness.cell.train import read_training_data, train_cell

    cell = run.cell
    assert cell.train is not None
    data = read_training_data(cell, run.settings.data_root)
    run.warn(training_note(cell.data.source, str(data.identity["sha256"])))
    _emit_start(run, cell.train.total_steps(len(data.rows)))
    check_memory(run)
    base = _load_base(run)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed or 0)
    return base, model, train_cell(run, base, model, data, flags)


def _emit_start(run: CellRun, total_steps: int) -> None:
    now = time.time_ns() // 1_000_000
    run.emit(CellStarted(run.cell.id, run.cell.label, total_steps, now))


def _load_base(run: CellRun, precision: str | None = None) -> Base:
    """Loads the base model, in a given precision or in that of the cell's settings."""
    from harness.evaluation.bos import bos_warning
    from harness.models.devices import resolve_precision
    from harness.models.loading import load_base

    train, device = run.cell.train, run.settings.device
    setting = precision or (train.precision if train else "auto")
    base = load_base(
        run.cell.model,
        data_root=run.settings.data_root,
        device=device,
        precision=resolve_precision(setting, device),
        quantization=train.base_quantization if train else None,
    )
    run.warn(bos_warning(base.tokenizer, base.model.config))
    return base


def _load_trained(run: CellRun, result: CellResult) -> tuple[Base, PreTrainedModel]:
    """Loads the base, in the precision of the earlier results, and what was trained on it."""
    from harness.models.loading import load_trained

    cell = run.cell
    base = _load_base(run, result.base.get("precision"))
    _check_same_base(cell, result, base)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed or 0)
    if cell.train is not None:
        load_trained(model, run.folder / ADAPTER_FOLDER)
    return base, model


def _environment(settings: RunSettings) -> dict[str, str]:
    environment = describe_environment(settings.device)
    if (num_devices := settings.rank_info.world_size) > 1:
        environment["num_devices"] = str(num_devices)
    return environment


def _check_same_base(cell: Cell, result: CellResult, base: Base) -> None:
    """Refuses to put trained tensors on other weights than those they were trained with."""
    for key in ("weights_sha256", "commit", "tokenizer_sha256"):
        then, now = result.base.get(key), base.identity.get(key)
        if then is not None and now is not None and then != now:
            raise ModelError(
                f"{cell.label}: the base model has changed since the cell was made ({key} was "
                f"{str(then)[:12]}, is {str(now)[:12]}); bring it back, or give another --runs-dir"
            )


def describe(fault: BaseException) -> str:
    """The first line of an error's message, with its type where it is not zbench's own."""
    if is_out_of_memory(fault):
        on_gpu = any(name in str(fault) for name in ("CUDA", "CUBLAS", "CUDNN"))
        full, larger = ("GPU", "GPU") if on_gpu else ("machine's memory", "machine")
        return (
            f"out of memory before the first step; free the {full} of other processes, or take a "
            f"larger {larger}"
        )
    lines = str(fault).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(fault, ZbenchError) else f"{type(fault).__name__}: {text}"


def record_failure(cell: Cell, folder: Path, fault: BaseException) -> None:
    """Stores why a cell failed, and keeps what it already has; a full disk is passed over."""
    try:
        result = read_result(folder) or CellResult(cell=cell.record(), cell_id=cell.id)
        error = CellError(type=type(fault).__name__, message=describe(fault), log=LOG_FILE)
        write_result(folder, replace(result, error=error))
    except StorageError:
        pass  # the disk is full or gone: the error itself still reaches the user
