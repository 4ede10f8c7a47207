"""Training one cell: its data, its callbacks, its checkpoints, and what is saved of it.

Loaded with torch; `harness.cell.run` calls it when there is something to train.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.memory import effective_budget, smaller_budget
from harness.cell.settings import CellRun
from harness.data.instructions import (
    DataSpec,
    Instructions,
    choose,
    read_instructions,
    rows_sha256,
    tokenize,
)
from harness.grid.folders import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, STEPS_FILE
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.methods.method import TelemetryCallback
from harness.models.devices import is_out_of_memory
from harness.models.loading import save_trained, trained_parameters
from harness.records.events import StepDone
from harness.records.files import sha256_of_file, write_frame
from harness.records.results import TrainResult
from harness.training.callback import Callback, Training
from harness.training.checkpoint import Checkpoints
from harness.training.loop import fit
from harness.training.loss_watch import LossWatch
from harness.training.method_statistics import MethodStatistics
from harness.training.micro_batches import longest_sequence
from harness.training.parallel import gather_trained
from harness.training.process_group import joined
from harness.training.progress import StepRecord
from harness.training.signals import SignalFlags

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness.models.loading import Base


@dataclass(frozen=True)
class Trained:
    """A training of a cell, to be saved."""

    measured: TrainResult
    records: Sequence[StepRecord]
    telemetry: TelemetryCallback | None
    gathered: Mapping[str, Tensor] | None
    """The trained tensors of a sharded model; None where the process holds the whole model."""


class StepEvents(Callback):
    """Emits an event for every step, first for those that were taken before the checkpoint."""

    def __init__(self, run: CellRun) -> None:
        self._run = run
        self.records: list[StepRecord] = []
        """All steps of the training."""

    def on_train_begin(self, training: Training) -> None:
        for record in training.progress.records:
            self._add(record, restored=True)

    def on_step(self, training: Training, record: StepRecord) -> None:
        self._add(record, restored=False)

    def _add(self, record: StepRecord, *, restored: bool) -> None:
        self.records.append(record)
        values = asdict(record)
        del values["seconds"], values["tokens"]
        self._run.emit(StepDone(self._run.cell.id, **values, restored=restored))


def read_training_data(cell: Cell, data_root: Path | None) -> Instructions:
    """A cell's fraction of the rows of its data set; the identity is that of the whole set.

    Raises:
        DataError: the data set is missing or broken.
    """
    assert cell.fraction is not None
    assert cell.seed is not None
    data = _instructions(cell.data, data_root)
    return replace(data, rows=choose(data.rows, cell.fraction, cell.seed))


@functools.lru_cache(maxsize=4)
def _instructions(spec: DataSpec, data_root: Path | None) -> Instructions:
    return read_instructions(spec, data_root=data_root)


def train_cell(
    run: CellRun, base: Base, model: PreTrainedModel, data: Instructions, flags: SignalFlags
) -> Trained:
    """Trains a cell from its latest good checkpoint, or from the beginning.

    Where several processes train it, all of them call this; rank 0 alone writes checkpoints. The
    model, with the method applied to it, is trained in place; signals are deferred from the first
    step on.

    Raises:
        SmallerBudget: out of memory; call it again in a fresh process.
        Stopped: a signal asked for it.
        ZbenchError: what went wrong.
    """
    cell, settings = run.cell, run.settings
    assert cell.train is not None
    assert cell.seed is not None
    examples = tokenize(data.rows, base.tokenizer, cell.train.max_length)
    data_sha256 = rows_sha256(data.rows)
    budget = effective_budget(run, examples)
    statistics = MethodStatistics.of(METHODS[cell.method], model)
    events = StepEvents(run)
    checkpoints = _checkpoints(run, base, model, data_sha256, flags)
    resume = checkpoints.latest()
    flags.deferred = True
    try:
        with joined(settings.rank_info, settings.device):
            measured = fit(
                model,
                examples,
                cell.train.model_copy(update={"token_budget": budget}),
                seed=cell.seed,
                device=settings.device,
                precision=base.identity["precision"],
                pad_token_id=0,  # any token serves: it is masked everywhere
                callbacks=[statistics, events, LossWatch(run.warn), checkpoints],
                resume=resume,
            )
            gathered = gather_trained(model)
    except Exception as fault:
        if not is_out_of_memory(fault):
            raise
        raise smaller_budget(run, used=budget, longest=longest_sequence(examples)) from fault
    finally:
        checkpoints.wait()
    content = data.identity["sha256"]
    measured = replace(measured, data_sha256=data_sha256, data_content_sha256=content)
    return Trained(measured, events.records, statistics.telemetry, gathered)


def _checkpoints(
    run: CellRun, base: Base, model: PreTrainedModel, data_sha256: str, flags: SignalFlags
) -> Checkpoints:
    """The cell's checkpoints; each belongs to one cell, data set, base model and shape."""
    assert run.cell.train is not None
    shapes = {name: list(value.shape) for name, value in trained_parameters(model).items()}
    trained = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
    base_keys = ("weights_sha256", "commit", "tokenizer_sha256", "precision")
    identity = {
        "cell_id": run.cell.id,
        "data_sha256": data_sha256,
        "trained_tensors_sha256": trained,
        **{f"base.{key}": base.identity.get(key) for key in base_keys},
    }
    return Checkpoints(
        run.folder / CHECKPOINTS_FOLDER,
        identity,
        minutes=run.cell.train.checkpoint_minutes,
        flags=flags,
        warn=run.warn,
        writes=run.settings.rank_info.rank == 0,
    )


def save_training(run: CellRun, model: PreTrainedModel, trained: Trained) -> TrainResult:
    """Saves a cell's adapter, its steps and its telemetry; returns what was measured.

    Raises:
        StorageError: a file cannot be written.
    """
    import pandas as pd

    cell, folder, measured = run.cell, run.folder, trained.measured
    counted = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    assert measured.trainable_parameters == counted, "count_parameters differs from the model"
    base_name = cell.model.source or cell.model.path
    adapter = folder / ADAPTER_FOLDER
    save_trained(model, adapter, base_name=base_name, tensors=trained.gathered)
    steps = [{**vars(step), **step.statistics} for step in trained.records]
    write_frame(folder / STEPS_FILE, pd.DataFrame(steps).drop(columns="statistics"))
    for name, frame in (trained.telemetry.frames() if trained.telemetry else {}).items():
        write_frame(folder / name, frame)
    root = run.settings.data_root
    if root is None or cell.data.path is None:
        return measured
    return replace(measured, data_file_sha256=sha256_of_file(root / cell.data.path))
