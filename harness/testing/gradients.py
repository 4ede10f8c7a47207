"""Losses and gradients for the laws: as training computes them, and one sequence at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.data.instructions import Example, label_runs
from harness.methods.row_dropout import DropoutKey, dropout_rng
from harness.models.loading import trained_parameters
from harness.training.loss import MicroBatch, PaddedBatch, ResponseLoss, dropout_key
from harness.training.micro_batches import number_sequences
from harness.training.packing import TokenSequence

VOCABULARY = 61


def token_ids(batch: int = 3, length: int = 12, *, seed: int = 3) -> Tensor:
    """Random token ids without special ones, (batch, length)."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=random)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def gradients(
    model: nn.Module, examples: Sequence[Example], token_budget: int, *, share: bool = True
) -> dict[str, Tensor]:
    """The trained tensors' gradients of the summed loss, as training computes them."""
    module = ResponseLoss(model.train())
    for batch in _micro_batches(module, examples, token_budget, share=share):
        with dropout_rng(dropout_key(batch, 5)):
            module(batch).backward()
    return taken_gradients(model)


def plain_gradients(model: Any, examples: Sequence[Example]) -> dict[str, Tensor]:
    """The same from the model's own logits, one whole sequence at a time."""
    model.train()
    for one in number_sequences(examples):
        with dropout_rng(DropoutKey(5, torch.tensor([one.index], device=device_of(model)))):
            plain_loss(model, one).backward()
    return taken_gradients(model)


def plain_loss(model: Any, example: Example | TokenSequence) -> Tensor:
    """The summed loss of one sequence from the model's own logits."""
    ids = torch.tensor([example.token_ids], device=device_of(model))
    labels = torch.full_like(ids, -100)
    for start, end in label_runs(example):
        labels[:, start:end] = ids[:, start:end]
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(example.token_ids) :]
    return nn.functional.cross_entropy(logits[:-1].float(), labels[0, 1:], reduction="sum")


def taken_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of the trained tensors, zero where there is none; they are taken off."""
    found = {
        name: torch.zeros_like(value) if value.grad is None else value.grad
        for name, value in trained_parameters(model).items()
    }
    model.zero_grad(set_to_none=True)
    model.eval()
    return found


def _micro_batches(
    module: ResponseLoss, examples: Sequence[Example], budget: int, *, share: bool
) -> Iterator[MicroBatch]:
    return module.micro_batches(
        number_sequences(examples),
        token_budget=budget,
        pad_token_id=0,
        device=device_of(module),
        share=share,
    )


def whole_batch(module: ResponseLoss, examples: Sequence[Example], *, share: bool) -> MicroBatch:
    """All examples in one micro-batch."""
    (batch,) = _micro_batches(module, examples, 1000, share=share)
    return batch


def loss_of_all_but_the_first(
    module: ResponseLoss, examples: Sequence[Example], *, share: bool
) -> Tensor:
    """The loss of the shorter sequences, with the longest beside them in the batch."""
    batch = whole_batch(module, examples, share=share)
    if isinstance(batch, PaddedBatch):
        sequence_ids = batch.sequence_ids_B[batch.positions // batch.input_ids_BT.shape[1]]
    else:
        sequence_ids = batch.sequence_ids_1N[0, batch.positions]
    others = sequence_ids != 0
    assert others.any()
    assert not others.all()
    with torch.no_grad():
        return module(
            replace(batch, positions=batch.positions[others], labels=batch.labels[others])
        )


def law_examples() -> list[Example]:
    """Sequences of several lengths; some begin alike, one continues another, two agree.

    Two are conversations, with a turn that is not in the loss.
    """
    lengths = ((12, 5), (7, 3), (9, 4), (4, 2), (12, 11))
    found = [
        Example(tuple(token_ids(1, length, seed=length)[0].tolist()), prompt)
        for length, prompt in lengths
    ]
    first = found[0].token_ids
    found += [Example((*first[:6], 7, 8, 9), 6), Example((*first[:6], 7, 5), 7)]
    found += [Example(first, 4, ((6, 9),)), Example((*first[:9], 8, 5, 7), 3, ((4, 5), (7, 9)))]
    return [*found, Example((*first, 9, 4), 8), found[1]]
