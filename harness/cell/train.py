"""Training one cell: its data, its callbacks, its checkpoints, and what is saved of it.

Imports torch; run.py imports it lazily, so that a cell that is done starts quickly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.examples import cell_examples
from harness.cell.memory import effective_budget, full_budget, smaller_budget
from harness.cell.pictures import CellPictures
from harness.cell.settings import CellContext
from harness.cell.validation import CellValidation
from harness.data.instructions import Example
from harness.data.reading import has_empty_response, odd_counts
from harness.data.sets import Instructions, rows_sha256
from harness.data.shown import examples_sha256, training_prompt
from harness.data.template_choice import jinja_sha256
from harness.data.templates import date_note, used_chat_template
from harness.data.validation import read_training
from harness.errors import DataError, MethodError
from harness.grid.folders import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, STEPS_FILE
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.methods.method import TelemetryCallback
from harness.methods.zero_init.pictures import record_encoder
from harness.models.devices import is_out_of_memory
from harness.models.loading import count_parameters, save_trained, trained_parameters
from harness.models.positions import length_note
from harness.models.trained_files import trained_sha256
from harness.records.events import StepDone
from harness.records.files import write_frame
from harness.records.prompts import shortened_prompt
from harness.records.results import TrainResult
from harness.training.callback import Callback, TrainingRun
from harness.training.checkpoint import Checkpoints
from harness.training.loop import fit
from harness.training.loss_watch import LossWatch
from harness.training.method_statistics import HookState, MethodStatistics
from harness.training.micro_batches import longest_sequence
from harness.training.parallel import gather_trained
from harness.training.pause import Pause
from harness.training.picture_effect import PictureEffect
from harness.training.process_group import joined
from harness.training.progress import StepRecord
from harness.training.signals import SignalFlags

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness.models.loading import Base
    from harness.training.loss import ResponseLoss


PADDING = 0
"""Any token id works: rows are right-padded, attention is causal, and the loss reads real positions
only."""


@dataclass(frozen=True)
class TrainingOutput:
    """What `train_cell` returns, to be saved."""

    result: TrainResult
    records: Sequence[StepRecord]
    telemetry: TelemetryCallback | None
    gathered_tensors: Mapping[str, Tensor] | None
    """FSDP: the trained tensors, whole, on rank 0; None where the process holds the whole model."""
    image_encoder: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the encoder of pictures; empty without one."""


class StepEvents(Callback):
    """Emits an event for every step, first for those that were taken before the checkpoint."""

    def __init__(self, context: CellContext) -> None:
        self._context = context
        self.records: list[StepRecord] = []
        """All steps of the training run."""
        self._loss: ResponseLoss | None = None

    @property
    def largest_pass(self) -> int | None:
        """The most tokens of a forward pass so far, also of one that failed; None before any."""
        return self._loss.largest_pass if self._loss else None

    def on_train_begin(self, training: TrainingRun) -> None:
        self._loss = training.train_step.loss
        for record in training.progress.records:
            self._add(record, restored=True)

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        self._add(record, restored=False)

    def _add(self, record: StepRecord, *, restored: bool) -> None:
        self.records.append(record)
        values = asdict(record)
        del values["seconds"], values["tokens"]
        self._context.emit(StepDone(self._context.cell.id, **values, restored=restored))


def read_training_data(cell: Cell, data_root: Path | None) -> Instructions:
    """A cell's fraction of the rows of its data set; the identity is that of the whole set.

    Raises:
        ZbenchError: the data set is missing or broken.
    """
    assert cell.fraction is not None
    data = read_training(cell.data, cell.fraction, cell.seed_of("subset"), data_root)
    if cell.data_sha256 not in (None, data.file_sha256):
        raise DataError(
            f"{cell.data.path}: has changed since the grid was read (SHA-256 "
            f"{str(cell.data_sha256)[:12]}, now {str(data.file_sha256)[:12]}); "
            "run the same command again"
        )
    return data


def train_cell(
    context: CellContext,
    base: Base,
    model: PreTrainedModel,
    data: Instructions,
    pictures: CellPictures | None,
    flags: SignalFlags,
) -> TrainingOutput:
    """Trains a cell from its latest good checkpoint, or from the beginning.

    Where several processes train it, all of them call this; rank 0 alone writes checkpoints. The
    model, with the method applied to it, is trained in place; signals are deferred from the first
    step on.

    Raises:
        MethodError: the method's `count_parameters` differs from what its `apply` made trainable.
        SmallerBudget: out of memory; call it again in a fresh process.
        Stopped: a signal asked for it.
        ZbenchError: what went wrong.
    """
    cell, settings = context.cell, context.settings
    assert cell.train is not None
    _check_parameter_count(cell, model)
    chat = used_chat_template(data.rows[0], cell.data.template, base.tokenizer)
    context.warn(chat and date_note(chat))
    examples = cell_examples(cell, data.rows, base.tokenizer, settings.data_root)
    validation = CellValidation.of(context, base)
    held_out = validation.examples if validation else ()
    context.warn(_length_note(base, examples))
    data_sha256 = rows_sha256(data.rows)  # of the chosen fraction of the rows, in order
    text_sha256 = data_sha256 + (f" {jinja_sha256(chat)}" if chat else "")
    budget = effective_budget(context, [*examples, *held_out])
    statistics = MethodStatistics.of(METHODS[cell.method], model)
    hook = METHODS[cell.method].hook_of(model, cell.options)
    events = StepEvents(context)
    state = HookState(hook, base.tokenizer) if hook else None
    pause = _pause(context, flags)
    effect = PictureEffect.of(examples)
    followers = [
        one for one in (validation, statistics, effect, events, pause, state) if one is not None
    ]
    checkpoints = _checkpoints(context, base, model, text_sha256, validation, pictures, flags)
    resume = checkpoints.latest()
    flags.deferred = True  # from here on; reset by leaving handle_signals
    with joined(settings.rank_info, settings.device):
        try:
            result = fit(
                model,
                examples,
                cell.train.model_copy(update={"token_budget": budget}),
                seed=cell.seed_of("order"),
                device=settings.device,
                precision=base.identity["precision"],
                pad_token_id=PADDING,
                callbacks=[*followers, LossWatch(context.warn), checkpoints],
                resume=resume,
                data_sha256=data_sha256,
                hook=hook,
                pictures=pictures.features if pictures else None,
            )
        except Exception as fault:  # memory runs out with errors of many kinds; others pass
            if not is_out_of_memory(fault):
                raise
            longest = longest_sequence([*examples, *held_out])
            raise smaller_budget(
                context, used=budget, longest=longest, largest_pass=events.largest_pass
            ) from fault
        finally:
            checkpoints.wait()
        gathered = gather_trained(model)
    facts = _facts(context, base, data, examples, chat)
    if budget < full_budget(context, [*examples, *held_out]):
        facts["token_budget"] = budget
    facts |= validation.facts(result.validation_losses) if validation else {}
    if effect is not None and (note := effect.note):
        context.warn(note)
        facts["note"] = f"{result.note}; {note}" if result.note else note
    result, encoder = replace(result, **facts), pictures.encoder if pictures else {}
    return TrainingOutput(result, events.records, statistics.telemetry, gathered, encoder)


def _pause(context: CellContext, flags: SignalFlags) -> Pause | None:
    """Stops a trial after the epochs that it is trained for, until a pruner decides."""
    epochs = context.settings.pauses.get(context.cell.id)
    return None if epochs is None else Pause(epochs, flags)


def _length_note(base: Base, examples: Sequence[Example]) -> str | None:
    positions = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    return length_note([len(one.token_ids) for one in examples], positions)


def _facts(
    context: CellContext,
    base: Base,
    data: Instructions,
    examples: Sequence[Example],
    chat: str | None,
) -> dict[str, Any]:
    """What the result says of the rows, and of what the model was given of them."""
    first = next(index for index, example in enumerate(examples) if example.num_labels)
    prompt = training_prompt(data.rows[first], examples[first], context.cell.data, base.tokenizer)
    return {
        # The identity's is the hash of all rows of the data set, before a fraction is chosen.
        "data_content_sha256": data.identity["sha256"],
        "data_file_sha256": data.file_sha256,  # of its bytes; the other two hashes are of rows
        "chat_template_sha256": chat and jinja_sha256(chat),
        "odd_rows": data.report.odd | odd_counts(empty=sum(map(has_empty_response, data.rows))),
        "prompts_sha256": examples_sha256(examples),
        "example": shortened_prompt(prompt),
    }


def _check_parameter_count(cell: Cell, model: PreTrainedModel) -> None:
    """Refuses a method that does not train as many parameters as it says."""
    counted = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    trained, _ = count_parameters(model)
    if trained != counted:
        raise MethodError(
            f"{cell.label}: count_parameters of '{cell.method}' gives {counted} trained parameters,"
            f" but its apply leaves {trained} with requires_grad; correct one of the two"
        )


def _checkpoints(
    context: CellContext,
    base: Base,
    model: PreTrainedModel,
    data_sha256: str,
    validation: CellValidation | None,
    pictures: CellPictures | None,
    flags: SignalFlags,
) -> Checkpoints:
    """The cell's checkpoints; each belongs to one cell, data set, base model, shape and encoder."""
    assert context.cell.train is not None
    shapes = {name: list(value.shape) for name, value in trained_parameters(model).items()}
    shapes_sha256 = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
    base_keys = ("weights_sha256", "commit", "tokenizer_sha256", "precision")
    identity = {
        "cell_id": context.cell.id,
        "data_sha256": data_sha256,
        "trained_tensors_sha256": shapes_sha256,  # names and shapes, not values
        **{f"base.{key}": base.identity.get(key) for key in base_keys},
        **({"validation_sha256": validation.rows_sha256} if validation else {}),
        **(pictures.identity if pictures else {}),
    }
    return Checkpoints(
        context.folder / CHECKPOINTS_FOLDER,
        identity,
        minutes=context.cell.train.checkpoint_minutes,
        flags=flags,
        warn=context.warn,
        writes=context.settings.rank_info.rank == 0,
    )


def save_training(
    context: CellContext, model: PreTrainedModel, output: TrainingOutput
) -> tuple[TrainResult, dict[str, str]]:
    """Saves a cell's adapter, its steps and its telemetry.

    Returns:
        The result, and the SHA-256 of the parquet files by name.

    Raises:
        StorageError: a file cannot be written.
    """
    import pandas as pd

    cell, folder = context.cell, context.folder
    base_name = cell.model.source or cell.model.path
    adapter = folder / ADAPTER_FOLDER
    if output.image_encoder:
        record_encoder(model, output.image_encoder)
    save_trained(model, adapter, base_name=base_name, tensors=output.gathered_tensors)
    result = replace(output.result, weights_sha256=trained_sha256(adapter))
    steps = [{**vars(step), **step.statistics} for step in output.records]
    frames = {STEPS_FILE: pd.DataFrame(steps).drop(columns="statistics")}
    frames |= output.telemetry.frames() if output.telemetry else {}
    written = {name: write_frame(folder / name, frame) for name, frame in frames.items()}
    return result, written
