"""The loss on validation rows after each epoch, and the weights of the epoch where it is lowest."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from harness.data.instructions import Example
from harness.errors import TrainingError, one_line
from harness.models.advice import ADVICE
from harness.models.loading import trained_parameters
from harness.records.checkpoints import best_file
from harness.records.files import atomic_file, save_tensors
from harness.training.callback import Callback, TrainingRun
from harness.training.micro_batches import number_sequences, resolve_budget
from harness.training.parallel import gather, reshard, shard_of
from harness.training.step import TrainStep

logger = logging.getLogger(__name__)


def mean_loss(train_step: TrainStep, examples: Sequence[Example]) -> float:
    """The mean cross-entropy per label token of examples, in nats, in evaluation mode.

    They are packed as in training, and divided among the ranks; all ranks call it and get the same
    bits. The model is left in the mode that it was in.

    Args:
        examples: some of which have labels.
    """
    ranks, sequences = train_step.ranks, number_sequences(examples)
    split = partial(
        train_step.loss.micro_batches,
        token_budget=resolve_budget(train_step.spec.token_budget, examples, train_step.device),
        pad_token_id=train_step.pad_token_id,
        device=train_step.device,
    )
    was_training = train_step.model.training
    train_step.model.eval()
    try:
        with torch.no_grad(), train_step.autocast():
            batches = list(split(ranks.shard(sequences)))
            losses = [
                weight * train_step.module(batch)
                for batch, weight, _ in ranks.lockstep(batches, lambda: next(split(sequences[-1:])))
            ]
    finally:
        reshard(train_step.module)
        train_step.model.train(was_training)
    total = ranks.total(math.fsum(torch.stack(losses).tolist()))
    return total / sum(example.num_labels for example in examples)


class Validation(Callback):
    """Measures the loss on validation rows after every epoch.

    With `keep`, a folder, the weights of the epoch with the lowest loss are those of the model at
    the end of the training. Until then they lie in that folder, beside the checkpoints that name
    their epoch (`Progress.best_epoch`), written whole or not at all; those of the last epoch need
    no file.

    Args:
        examples: of the validation rows.
        keep: the folder of the checkpoints; None keeps the last weights.
        on_loss: gets epoch (from 0), loss, and whether an earlier process measured it.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        keep: Path | None = None,
        on_loss: Callable[[int, float, bool], object] = lambda *_: None,
    ) -> None:
        self.examples, self.keep, self._on_loss = examples, keep, on_loss

    def on_train_begin(self, training: TrainingRun) -> None:
        """Repeats the losses of earlier processes; refuses a resume without the kept weights."""
        if not any(example.num_labels for example in self.examples):
            raise TrainingError(
                f"none of {len(self.examples)} validation rows has a response within max_length "
                f"{training.train_step.spec.max_length}; raise max_length, or hold out other rows"
            )
        for epoch, loss in enumerate(training.progress.validation_losses):
            self._on_loss(epoch, loss, True)
        best, last = training.progress.best_epoch, training.num_epochs - 1
        if self.keep is not None and best not in (None, last):
            assert best is not None
            if not (file := best_file(self.keep, best)).is_file():
                raise TrainingError(
                    f"{file}: the weights of the best epoch so far are gone; {self._begin_anew}"
                )

    def on_epoch(self, training: TrainingRun, epoch: int) -> None:
        """Measures, and stores the weights where they are the best so far."""
        loss = mean_loss(training.train_step, self.examples)
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}: the validation loss is {loss:.4g}; {ADVICE['diverged']}"
            )
        progress = training.progress
        progress.validation_losses.append(loss)
        self._on_loss(epoch, loss, False)
        is_best = progress.best_epoch == epoch < training.num_epochs - 1
        if self.keep is None or not is_best:
            return
        tensors = gather(trained_parameters(training.train_step.model))  # all ranks take part
        if training.train_step.ranks.rank == 0:
            with atomic_file(best_file(self.keep, epoch)) as temporary:
                save_tensors(temporary, tensors)

    def on_train_end(self, training: TrainingRun) -> None:
        """Puts the kept weights into the model, where they are not the last ones."""
        best, last = training.progress.best_epoch, training.num_epochs - 1
        if self.keep is None or best is None or best == last:
            return
        logger.info("keeps the weights of epoch %d, whose validation loss is the lowest", best)
        file = best_file(self.keep, best)
        parameters = trained_parameters(training.train_step.model)
        try:
            with torch.no_grad(), safe_open(file, "pt") as stored:
                for name, parameter in parameters.items():  # one whole tensor at a time
                    parameter.copy_(shard_of(stored.get_tensor(name), parameter))
        except (OSError, SafetensorError) as fault:
            said = f"{file}: damaged ({one_line(fault)}); {self._begin_anew}"
            raise TrainingError(said) from fault

    @property
    def _begin_anew(self) -> str:
        return f"remove {self.keep}, and run the same command again: the training begins anew"
