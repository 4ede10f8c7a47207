"""Training one cell: its data, its method, its checkpoints, and what is kept of it.

Loaded with torch; `harness.cell.run` calls it when there is something to train.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.cell.memory import budget_key, check_memory, remembered_budget, smaller_budget
from harness.data.instructions import (
    DataSpec,
    Example,
    Instructions,
    choose,
    read_instructions,
    rows_sha256,
    tokenize,
)
from harness.data.pins import training_note
from harness.grid.folders import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, STEPS_FILE
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.models.devices import is_out_of_memory
from harness.models.loading import save_trained, trained_parameters
from harness.records.events import Emit, StepDone, Warned
from harness.records.files import sha256_of_file, write_frame
from harness.records.results import TrainResult
from harness.training.checkpoint import Checkpoints, remove_checkpoints
from harness.training.loop import fit
from harness.training.micro_batches import resolve_budget
from harness.training.parallel import gather_trained
from harness.training.process_group import joined
from harness.training.progress import StepRecord
from harness.training.signals import SignalFlags
from harness.training.spec import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from harness.cell.settings import RunSettings
    from harness.models.loading import Base

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained cell."""

    base: Base
    model: PreTrainedModel
    measured: TrainResult
    whole: bool
    """Whether this process holds the whole model, not one part of it."""


def train_cell(
    cell: Cell,
    settings: RunSettings,
    folder: Path,
    *,
    load: Callable[[], Base],
    start: Callable[[int], None],
    emit: Emit,
    requests: SignalFlags,
) -> Trained:
    """Trains a cell from its latest good checkpoint, or from the beginning, and saves it.

    Where several processes train it, all of them call this; rank 0 alone writes and tells.

    Args:
        cell: a cell that is trained.
        settings: where.
        folder: the cell's, held by this process.
        load: loads the base model.
        start: told the number of optimizer steps before anything is loaded.
        emit: told of every step, and first of those before the checkpoint.
        requests: what signals ask for; deferred from the first step on.

    Returns:
        What the training gave; adapter and steps are in the folder, and `finish_training` is to be
        called once the result is there too.

    Raises:
        SmallerBudget: the memory is full; call it again in a fresh process.
        Stopped: a signal asked for it.
        ZbenchError: what went wrong.
    """
    method, train = METHODS[cell.method], cell.train
    assert train is not None
    assert cell.fraction is not None
    assert cell.seed is not None
    data = _instructions(cell.data, settings.data_root)
    content = str(data.identity["sha256"])
    if (note := training_note(cell.data.source, content)) is not None:
        emit(Warned(cell.id, note))
    rows = choose(data.rows, cell.fraction, cell.seed)
    start(train.total_steps(len(rows)))
    member = settings.member
    leads = member is None or member.rank == 0
    check_memory(cell, settings.device, member.size if member else 1)
    base = load()
    examples = tokenize(rows, base.tokenizer, train.max_length)
    model = method.apply(base.model, cell.options, cell.seed)
    trace = method.trace(model) if method.trace else None
    data_sha256 = rows_sha256(rows)
    key, longest = budget_key(cell, settings.device), _longest(examples)
    budget = _token_budget(settings, train, examples, key)
    steps: list[StepRecord] = []

    def on_step(record: StepRecord, *, restored: bool = False) -> None:
        steps.append(record)
        emit(_step_done(cell, record, restored=restored))

    def warn(text: str) -> None:
        logger.warning("%s", text)
        emit(Warned(cell.id, text))

    checkpoints = Checkpoints(
        folder / CHECKPOINTS_FOLDER,
        _identity(cell, base, model, data_sha256),
        minutes=train.checkpoint_minutes,
        requests=requests,
        warn=warn,
        writes=leads,
    )
    resume = checkpoints.latest()
    if resume is not None:
        logger.info("goes on from %s", checkpoints.last)
        for record in resume.progress.records:
            on_step(record, restored=True)
    requests.deferred = True
    try:
        with joined(member, settings.device):
            measured = fit(
                model,
                examples,
                train,
                seed=cell.seed,
                device=settings.device,
                precision=base.identity["precision"],
                pad_token_id=_pad_token_id(base),
                data_sha256=data_sha256,
                statistics=method.statistics,
                trace=trace,
                on_step=on_step,
                token_budget=budget,
                checkpoints=checkpoints,
                resume=resume,
                warn=warn,
            )
            gathered = gather_trained(model)
    except Exception as fault:
        if not is_out_of_memory(fault):
            raise
        raise smaller_budget(
            cell, settings.runs_dir, settings.device, used=budget, longest=longest
        ) from fault
    finally:
        checkpoints.wait()
    if leads:
        counted = method.count_parameters(cell.model.shape, cell.options)
        assert measured.trainable_parameters == counted, "count_parameters differs from the model"
        base_name = cell.model.source or cell.model.path
        save_trained(model, folder / ADAPTER_FOLDER, base_name=base_name, tensors=gathered)
        write_steps(folder / STEPS_FILE, steps)
        for name, frame in (trace.frames() if trace else {}).items():
            write_frame(folder / name, frame)
    file_sha256 = _file_sha256(cell.data, settings.data_root)
    measured = replace(measured, data_file_sha256=file_sha256, data_content_sha256=content)
    return Trained(base, model, measured, whole=gathered is None)


def finish_training(folder: Path) -> None:
    """Removes a cell's checkpoints, once its result is stored."""
    remove_checkpoints(folder / CHECKPOINTS_FOLDER)


def _step_done(cell: Cell, record: StepRecord, *, restored: bool) -> StepDone:
    return StepDone(
        cell.id,
        step=record.step,
        epoch=record.epoch,
        loss=record.loss,
        learning_rate=record.learning_rate,
        tokens_per_second=record.tokens_per_second,
        time_ms=record.time_ms,
        statistics=record.statistics,
        restored=restored,
    )


def _longest(examples: Sequence[Example]) -> int:
    return max((len(example.token_ids) for example in examples if example.num_labels), default=1)


def _token_budget(
    settings: RunSettings, train: TrainSpec, examples: Sequence[Example], key: str
) -> int:
    """Returns the tokens of a forward pass: fewer than asked for where fewer have held so far."""
    setting = settings.token_budget or train.token_budget
    wanted = resolve_budget(setting, examples, torch.device(settings.device))
    held = remembered_budget(settings.runs_dir, key)
    # What held for other data may be less than the longest sequence here.
    return wanted if held is None else min(wanted, max(held, _longest(examples)))


def _identity(cell: Cell, base: Base, model: PreTrainedModel, data_sha256: str) -> dict[str, Any]:
    """Returns what a checkpoint must agree in with the training that goes on from it."""
    shapes = {name: list(value.shape) for name, value in trained_parameters(model).items()}
    trained = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
    base_keys = ("weights_sha256", "commit", "tokenizer_sha256", "precision")
    return {
        "cell_id": cell.id,
        "data_sha256": data_sha256,
        "trained_tensors_sha256": trained,
        **{f"base.{key}": base.identity.get(key) for key in base_keys},
    }


def _pad_token_id(base: Base) -> int:
    """Returns a token for padding; it is masked everywhere, so that any one serves."""
    tokenizer = base.tokenizer
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return int(tokenizer.eos_token_id)


@functools.lru_cache(maxsize=4)
def _instructions(spec: DataSpec, data_root: Path | None) -> Instructions:
    return read_instructions(spec, data_root=data_root)


def _file_sha256(data: DataSpec, data_root: Path | None) -> str | None:
    if data_root is None or data.path is None:
        return None
    return sha256_of_file(data_root / data.path)


def write_steps(path: Path, steps: Sequence[StepRecord]) -> None:
    """Writes the whole course of a training: one row per optimizer step.

    Raises:
        StorageError: the file cannot be written.
    """
    import pandas as pd

    rows = []
    for step in steps:
        record = asdict(step)
        statistics = record.pop("statistics")
        rows.append(record | dict(statistics))
    write_frame(path, pd.DataFrame(rows))
