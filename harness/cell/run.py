"""One cell's life, from the base model to its scores: the only place where all the parts meet."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.free_memory import check_free_memory
from harness.cell.memory import SmallerBudget, check_memory
from harness.cell.pictures import training_pictures
from harness.cell.score import check_tasks, score_cell
from harness.cell.settings import CellContext, RunSettings
from harness.data.pins import training_note
from harness.errors import (
    DataError,
    ModelError,
    StorageError,
    ZbenchError,
    mask_secrets,
    one_line,
    plain_message,
    printable,
)
from harness.export.model_card import CARD_FILE, model_card
from harness.grid.cell_files import file_faults, whole_scores
from harness.grid.folders import (
    ADAPTER_FOLDER,
    CHECKPOINTS_FOLDER,
    LOG_FILE,
    cell_folder,
    id_of,
    write_cell_file,
)
from harness.grid.locks import CellBusy, locked
from harness.grid.schema import Cell
from harness.grid.status import LocalInputs, is_trained
from harness.methods import METHODS
from harness.models.devices import free_memory, is_out_of_memory
from harness.models.trained_files import check_undamaged
from harness.records.environment import describe_environment, prepare_torch
from harness.records.events import CellEnded, CellStarted, Emit, Event, Warned
from harness.records.files import unwritable, write_text
from harness.records.prefetched import use_prefetched
from harness.records.results import (
    AGAIN,
    DAMAGED_FILE,
    RESULT_FILE,
    CellError,
    CellResult,
    DamagedResult,
    read_result,
    write_result,
)
from harness.training.signals import Paused, SignalFlags, Stopped, handle_signals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.cell.train import TrainingOutput
    from harness.models.loading import Base


def run_cell(cell: Cell, settings: RunSettings, emit: Emit) -> CellResult:
    """Trains, saves and scores a cell, as far as that is not done yet; returns its whole result.

    Everything is stored as it comes: a killed run resumes from the last checkpoint or benchmark.
    `emit` gets an event for every step.

    Raises:
        SmallerBudget: out of memory, which is no failure: retry the cell in a fresh process.
        Paused: its training has come as far as `settings.pauses` says.
        Stopped: a signal asked for it; the next call resumes from the checkpoint.
        CellBusy: another process runs it, or has taken it over from this one.
        ZbenchError: what went wrong, in one line; it is stored in the folder too.
    """
    use_prefetched(settings.data_root)
    with _holding(cell, settings, emit) as context:
        folder = context.folder
        estimate = settings.estimates.get(cell.id, {})
        result = _read_result(context) or CellResult(cell.record(), cell.id, estimate=estimate)
        faults = file_faults(folder, result)
        for fault in faults.values():
            context.warn(str(fault))
        result = whole_scores(result, faults)
        needs_training = not is_trained(cell, result)
        inputs = LocalInputs(settings.data_root)
        tasks = cell.tasks if needs_training else inputs.missing_tasks(cell, result)
        if not needs_training and not tasks:
            return result
        prepare_torch(settings.threads)
        check_free_memory(context, trained=not needs_training)
        write_cell_file(folder, cell)
        if not needs_training:
            _emit_start(context, total_steps=0)
            base, model = load_finished(context, result)
            result = replace(result, base=result.base or base.identity, error=None)
        else:
            from harness.cell.train import save_training

            check_tasks(context, tasks)
            with handle_signals() as flags:
                base, model, output = _train(context, flags)
                trained, written = save_training(context, model, output)
                result = CellResult(
                    cell=result.cell,
                    cell_id=cell.id,
                    train=trained,
                    base=base.identity,
                    image_encoder=output.image_encoder,
                    environment=_environment(settings),
                    estimate=result.estimate,
                    files_sha256=written,
                )
                write_result(folder, result)
                shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)
                if flags.stop:  # since the last step
                    raise Stopped
            if output.gathered_tensors is not None:  # FSDP: reload the whole model to score it
                del base, model, output
                free_memory(settings.device)
                base, model = load_finished(context, result)
        result = score_cell(context, base, model, tasks, result)
        if cell.train is not None:
            write_text(folder / ADAPTER_FOLDER / CARD_FILE, model_card(cell, result))
        return result


@contextlib.contextmanager
def _holding(cell: Cell, settings: RunSettings, emit: Emit) -> Iterator[CellContext]:
    """Holds the cell: no event of it is emitted once another process has taken it over."""
    folder = cell_folder(settings.runs_dir, cell)
    with locked(folder) as lease:

        def emit_while_held(event: Event) -> None:
            lease.check_known()
            emit(event)

        context = CellContext(cell, settings, folder, emit_while_held)
        with _failures_recorded(context):
            yield context


def _read_result(context: CellContext) -> CellResult | None:
    """The cell's result so far; a damaged one is put aside, and the cell begins anew.

    Raises:
        StorageError: it cannot be read or put aside.
    """
    try:
        return read_result(context.folder, id_of(context.folder))
    except DamagedResult as damaged:
        path, aside = context.folder / RESULT_FILE, context.folder / DAMAGED_FILE
        try:
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside)
            path.replace(aside)
        except OSError as fault:
            raise StorageError(f"{damaged} (it cannot be moved: {fault.strerror})") from fault
        context.warn(f"{str(damaged).removesuffix(f'; {AGAIN}')}; it is put aside as {aside.name}")
        return None


def follow_cell(cell: Cell, settings: RunSettings) -> None:
    """Body of ranks > 0: joins rank 0's training run; writes and emits nothing.

    Raises:
        ZbenchError: what went wrong, in one line.
    """
    use_prefetched(settings.data_root)
    prepare_torch(settings.threads)
    folder = cell_folder(settings.runs_dir, cell)
    context = CellContext(cell, settings, folder, emit=lambda event: None)
    check_free_memory(context, trained=False)
    with handle_signals() as flags:
        _train(context, flags)


@contextlib.contextmanager
def _failures_recorded(context: CellContext) -> Iterator[None]:
    """Emits CellEnded on success or failure, Warned on out of memory, nothing when stopped."""
    cell, folder, start = context.cell, context.folder, time.monotonic()

    def emit_end(error: str | None) -> None:
        context.emit(CellEnded(cell.id, str(folder), time.monotonic() - start, error))

    try:
        yield
    except CellBusy:  # it was taken over: what becomes of it is told by who has it now
        raise
    except SmallerBudget as fault:
        context.emit(Warned(cell.id, str(fault), restarts=True))
        raise
    except Paused:
        seconds = time.monotonic() - start
        context.emit(CellEnded(cell.id, str(folder), seconds, paused=True))
        raise
    except Exception as fault:  # whatever ends a cell is kept with it; who called it logs it
        record_failure(cell, folder, fault)
        emit_end(describe(fault))
        raise
    emit_end(None)


def _train(
    context: CellContext, flags: SignalFlags
) -> tuple[Base, PreTrainedModel, TrainingOutput]:
    """Emits the start and checks memory, then trains the method on a freshly loaded base."""
    from harness.cell.train import read_training_data, train_cell

    cell = context.cell
    assert cell.train is not None
    data = read_training_data(cell, context.settings.data_root)
    _check_same_data(context, str(data.identity["sha256"]))
    context.warn(training_note(cell.data.published, str(data.identity["sha256"])))
    _emit_start(context, cell.train.total_steps(len(data.rows)))
    check_memory(context)
    pictures = training_pictures(context, data)  # before the base model: the encoder is gone then
    base = _load_base(context)
    model = METHODS[cell.method].apply_on(
        context.settings.rank_info.world_size,
        base.model,
        cell.options,
        cell.seed_of("initialization"),
    )
    return base, model, train_cell(context, base, model, data, pictures, flags)


def _check_same_data(context: CellContext, sha256: str) -> None:
    """Refuses other rows than those that the grid's other cells were trained on."""
    name = context.cell.data.hub_name
    then = context.settings.data_contents.get(str(name))
    if then not in (None, sha256):
        raise DataError(
            f"{name}: its rows (SHA-256 {sha256[:12]}) are not those that other cells of this grid "
            f"were trained on ({str(then)[:12]}); give their commit as data.revision, or another "
            "--runs-dir"
        )


def _emit_start(context: CellContext, total_steps: int) -> None:
    now = time.time_ns() // 1_000_000
    context.emit(CellStarted(context.cell.id, context.cell.label, total_steps, now))


def _load_base(context: CellContext, precision: str | None = None) -> Base:
    """Loads the base model, in a given precision or in that of the cell's settings."""
    from harness.models.devices import resolve_precision
    from harness.models.loading import load_base

    train, device = context.cell.train, context.settings.device
    setting = precision or (train.precision if train else "auto")
    base = load_base(
        context.cell.model,
        data_root=context.settings.data_root,
        device=device,
        precision=resolve_precision(setting, device),
        quantization=train.base_quantization if train else None,
    )
    for note in base.notes:
        context.warn(note)
    return base


def load_finished(context: CellContext, result: CellResult) -> tuple[Base, PreTrainedModel]:
    """Loads the base in the result's precision, and trained tensors (`base`, `adapter`: none).

    Raises:
        ModelError: the trained tensors are not those that were written.
    """
    from harness.models.loading import load_trained

    cell = context.cell
    if result.train is not None:
        check_undamaged(context.folder / ADAPTER_FOLDER, result.train.weights_sha256)
    base = _load_base(context, result.base.get("precision"))
    _check_same_base(cell, result, base)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed_of("initialization"))
    if cell.train is not None:
        load_trained(model, context.folder / ADAPTER_FOLDER)
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
    """The first line of an error's message; where it is not zbench's own, that the log has more."""
    if is_out_of_memory(fault):
        on_gpu = any(name in str(fault) for name in ("CUDA", "CUBLAS", "CUDNN"))
        larger = "GPU" if on_gpu else "machine"
        return (
            "out of memory while loading or gathering the model; free the memory of other "
            f"processes, or use a larger {larger}"
        )
    if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return str(unwritable(Path(one_line(fault.filename or "a file")), fault))
    if not isinstance(fault, ZbenchError):
        said = mask_secrets(plain_message(fault))
        return f"unexpected fault ({said}); the log has its traceback"
    lines = printable(str(fault)).strip().splitlines()
    return lines[0] if lines else "no message"


def record_failure(cell: Cell, folder: Path, fault: BaseException) -> None:
    """Stores why a cell failed, and keeps what it already has; ignores a StorageError."""
    try:
        result = read_result(folder) or CellResult(cell=cell.record(), cell_id=cell.id)
        error = CellError(type=type(fault).__name__, message=describe(fault), log=LOG_FILE)
        write_result(folder, replace(result, error=error))
    except StorageError:
        pass  # so that the original error is reported
