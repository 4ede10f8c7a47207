"""Does another picture change the answers? What tells a projection that learned from one that did
not: at too high a learning rate it saturates, gives every picture the same, and says so nowhere.

It reads and never writes: no parameter, no gradient, no random number is touched, so that a run
with it gives the same bits as one without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from harness.data.instructions import Example
from harness.records.picture_effect import CHANGES, EFFECT, does_nothing
from harness.training.callback import Callback, TrainingRun
from harness.training.micro_batches import number_sequences
from harness.training.step import TrainStep

PROBED = 32
"""Training examples that are measured on: the first ones with a picture."""


def picture_effect(
    train_step: TrainStep, examples: Sequence[Example], others: Sequence[str]
) -> dict[str, float]:
    """What another picture does to the answers, in evaluation mode.

    `picture_effect` is the mean absolute change of a label token's log-likelihood, in nats, when
    the example's picture is replaced by another; `picture_changes` is the share of the examples of
    which a most likely label token changes, given the label tokens before it.

    Args:
        train_step: its model is left in the mode that it was in.
        examples: with labels and pictures; at least one.
        others: for each, the other picture.
    """
    loss, moved, changed = train_step.loss, [], []
    was_training = train_step.model.training
    train_step.model.eval()
    try:
        with torch.no_grad(), train_step.autocast():
            for example, other in zip(examples, others, strict=True):
                (own,) = number_sequences([example])
                # Of equal lengths: one micro-batch, in which the labels of each follow each other.
                (batch,) = loss.micro_batches(
                    [own, replace(own, picture=other)],
                    token_budget=2 * len(own.token_ids),
                    pad_token_id=train_step.pad_token_id,
                    device=train_step.device,
                )
                first_LV, second_LV = loss.label_logits(batch).log_softmax(-1).chunk(2)
                labels_L1 = batch.labels[: len(first_LV), None]
                moved.append((first_LV - second_LV).gather(1, labels_L1).abs().flatten())
                changed.append((first_LV.argmax(-1) != second_LV.argmax(-1)).any())
    finally:
        train_step.model.train(was_training)
    means = [torch.cat(moved).mean(), torch.stack(changed).float().mean()]
    effect, changes = torch.stack(means).tolist()
    return {EFFECT: effect, CHANGES: changes}


class PictureEffect(Callback):
    """Measures `picture_effect` after each epoch and after the training, on the same examples.

    Args:
        examples: with labels and pictures.
        others: for each, the other picture.
    """

    def __init__(self, examples: Sequence[Example], others: Sequence[str]) -> None:
        self.examples, self.others = examples, others
        self._last: dict[str, float] = {}

    @classmethod
    def of(cls, examples: Sequence[Example]) -> PictureEffect | None:
        """That of a training; None where its examples have no two pictures."""
        seen = [one for one in examples if one.picture is not None and one.num_labels]
        pictures = list(dict.fromkeys(one.picture for one in seen if one.picture is not None))
        if len(pictures) < 2:
            return None
        half = len(pictures) // 2  # far from the own one: neighbours may be of one scene
        after = {name: pictures[index - half] for index, name in enumerate(pictures)}
        return cls(seen[:PROBED], [after[str(one.picture)] for one in seen[:PROBED]])

    def step_metrics(self, training: TrainingRun, step: int) -> Mapping[str, float]:
        """After an epoch's last step."""
        epoch = training.train_step.spec.steps_per_epoch(len(training.examples))
        return {} if step % epoch else picture_effect(*self._arguments(training))

    def on_train_end(self, training: TrainingRun) -> None:
        """Measures the weights that are saved."""
        self._last = picture_effect(*self._arguments(training))

    def result_metrics(self, training: TrainingRun) -> Mapping[str, float]:
        """The last measurement."""
        return self._last

    @property
    def note(self) -> str | None:
        """What a reader must know where the pictures do nothing after the training."""
        if not self._last:
            return None
        effect, changes = self._last[EFFECT], self._last[CHANGES]
        if not does_nothing(effect, changes):
            return None
        return (
            f"another picture does not change the answers: on {len(self.examples)} training rows "
            f"it moves the log-likelihood of a label token by {effect:.2g} nats, and a most likely "
            f"token of {changes:.0%} of them; set a lower train.image_learning_rate"
        )

    def _arguments(
        self, training: TrainingRun
    ) -> tuple[TrainStep, Sequence[Example], Sequence[str]]:
        return training.train_step, self.examples, self.others
