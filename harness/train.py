"""The training loop: one for all methods; whatever parameters require gradients are trained.

Precision. Trained tensors, their gradients and the optimizer's state are fp32, so nothing needs a
loss scale. The frozen base is fp32 or bf16; with bf16 the forward pass runs under autocast, so that
fp32 matrices (LoRA's, and all of `full`'s) are multiplied in bf16 while AdamW steps their fp32
masters. Frozen bf16 matrices are multiplied as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn

from harness.data import Example, epoch_batches
from harness.errors import TrainingError
from harness.methods.row_dropout import Draws, drawing
from harness.models import count_parameters, trained_parameters
from harness.recipe import TrainSpec
from harness.response_loss import ResponseLoss, micro_batches
from harness.results import TrainResult

STATISTICS_EVERY = 10
"""Optimizer steps between two readings of a method's statistics: each reading waits for the
device. The first and the last step are always read."""

Statistics = Callable[[nn.Module], dict[str, float]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step."""

    step: int
    """From 1."""
    epoch: int
    """From 0."""
    loss: float
    """Mean per label token of the optimizer batch, in nats."""
    learning_rate: float
    tokens: int
    """Real tokens, padding not counted."""
    seconds: float
    """Since training began."""
    tokens_per_second: float
    """Of this step."""
    time_ms: int
    """Unix time in milliseconds."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """The method's own; empty in the steps between two readings."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Returns the trained tensors for AdamW: those that decay, and those that do not.

    Weight matrices, embeddings, prompts and gates decay; biases and the weights of norms do not.
    The tensor's name and its module's class decide, not its number of axes, by which a flat gate
    would pass for a bias.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained_parameters(model).items():
        path, _, leaf = name.rpartition(".")
        is_norm = type(model.get_submodule(path)).__name__.endswith("Norm")
        (others if is_norm or leaf == "bias" else decaying).append(parameter)
    groups = ((decaying, weight_decay), (others, 0.0))
    return [{"params": list(kind), "weight_decay": decay} for kind, decay in groups if kind]


@dataclass(frozen=True)
class _Totals:
    """What one optimizer batch gave."""

    loss: float
    """Sum over the labels."""
    labels: int
    tokens: int
    gradient_norm: float
    """Of the mean loss, before clipping."""


class _Trainer:
    """The model with its optimizer, and what stays the same from step to step."""

    def __init__(
        self,
        model: nn.Module,
        spec: TrainSpec,
        *,
        device: torch.device,
        precision: str,
        pad_token_id: int,
    ) -> None:
        self.model, self.spec, self.device = model, spec, device
        self.pad_token_id = pad_token_id
        self.autocast = precision == "bf16"
        self.parameters = list(trained_parameters(model).values())
        assert all(tensor.dtype == torch.float32 for tensor in self.parameters)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, spec.weight_decay),
            lr=spec.peak_learning_rate,
            betas=(spec.beta1, spec.beta2),
            eps=spec.epsilon,
            fused=device.type in ("cpu", "cuda") or None,
        )
        # The model lies on its device and autocasts here: accelerate's own precision is one for
        # the whole process, while the cells of a process may differ.
        self.accelerator = Accelerator(mixed_precision="no", device_placement=False)
        self.module, self.optimizer = self.accelerator.prepare(ResponseLoss(model), optimizer)

    def gradients(self, examples: Sequence[Example], key: int) -> _Totals:
        """Computes the gradient of the mean loss over all labels of an optimizer batch.

        The sum over the labels is divided by their number in the whole batch, so that the split
        into micro-batches changes nothing. `key` decides the draws of dropout.
        """
        labels = sum(example.num_labels for example in examples)
        batches = list(
            micro_batches(
                examples,
                self.spec.micro_batch_size,
                pad_token_id=self.pad_token_id,
                device=self.device,
            )
        )
        losses = []
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                with (
                    torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
                    drawing(Draws(key, batch.rows)),
                ):
                    loss = self.module(batch.input_ids, batch.positions, batch.labels)
                self.accelerator.backward(loss / labels)
            losses.append(loss.detach())
        norm = self.accelerator.clip_grad_norm_(
            self.parameters, self.spec.max_gradient_norm or math.inf
        )
        *sums, gradient_norm = torch.stack([*losses, norm]).tolist()  # the step's one wait
        tokens = sum(len(example.token_ids) for example in examples if example.num_labels)
        return _Totals(math.fsum(sums), labels, tokens, gradient_norm)

    def update(self, learning_rate: float) -> None:
        """Takes the optimizer's step and forgets the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def fit(
    model: nn.Module,
    examples: Sequence[Example],
    spec: TrainSpec,
    *,
    seed: int,
    device: str,
    precision: str,
    pad_token_id: int,
    data_sha256: str,
    statistics: Statistics | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    """Trains what requires gradients in `model`, in place, and leaves it in evaluation mode.

    On a CPU the same call gives the same bits. Any `micro_batch_size` gives the same result up to
    rounding, dropout included.

    Args:
        model: a causal language model on `device`; its trained tensors are fp32.
        examples: what to train on; those without labels are passed over.
        spec: how.
        seed: decides the order of the examples and the draws of dropout.
        device: such as `cpu` or `cuda`.
        precision: of the frozen base, `fp32` or `bf16`.
        pad_token_id: any token of the vocabulary; no result depends on it.
        data_sha256: of the rows behind `examples`; kept in the result.
        statistics: the method's own, read every `STATISTICS_EVERY` steps.
        on_step: told of every optimizer step.

    Raises:
        TrainingError: a loss or gradient is not finite (no weight is spoiled by it), or no example
            has a label.
    """
    _check(spec, examples)
    place = torch.device(device)
    trainer = _Trainer(model, spec, device=place, precision=precision, pad_token_id=pad_token_id)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    start = time.perf_counter()
    losses, labels = [0.0] * spec.epochs, [0] * spec.epochs
    highest_rate = 0.0
    tokens = 0
    for record, totals in _steps(trainer, examples, seed, statistics):
        losses[record.epoch] += totals.loss
        labels[record.epoch] += totals.labels
        tokens += totals.tokens
        highest_rate = max(highest_rate, record.learning_rate)
        if on_step is not None:
            on_step(record)
    seconds = time.perf_counter() - start
    trainable, total = count_parameters(model)
    return TrainResult(
        steps=spec.total_steps(len(examples)),
        examples=len(examples),
        tokens=tokens,
        epoch_losses=tuple(loss / count for loss, count in zip(losses, labels, strict=True)),
        trainable_parameters=trainable,
        total_parameters=total,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        peak_memory_bytes=_peak_memory_bytes(place),
        peak_learning_rate=highest_rate,
        precision=precision,
        device=device,
        data_sha256=data_sha256,
        final_statistics=statistics(model) if statistics else {},
    )


def _check(spec: TrainSpec, examples: Sequence[Example]) -> None:
    if not any(example.num_labels for example in examples):
        raise TrainingError(
            f"none of {len(examples)} examples has a response within max_length "
            f"{spec.max_length}; raise max_length"
        )
    warmup, steps = spec.warmup(len(examples)), spec.total_steps(len(examples))
    if warmup >= steps:
        logger.warning(
            "the warm-up (%g steps) is not shorter than the training (%d steps): the learning "
            "rate ends at %.3g and never reaches its peak of %.3g",
            warmup,
            steps,
            spec.learning_rate_at(steps, len(examples)),
            spec.peak_learning_rate,
        )


def _steps(
    trainer: _Trainer, examples: Sequence[Example], seed: int, statistics: Statistics | None
) -> Iterator[tuple[StepRecord, _Totals]]:
    """Trains, and yields each step once it is taken."""
    spec, model = trainer.spec, trainer.model
    last_step = spec.total_steps(len(examples))
    start = time.perf_counter()
    model.train()
    try:
        for step, epoch, chosen in _optimizer_batches(spec, examples, seed):
            begun = time.perf_counter()
            with _seeded(trainer.device, f"step/{seed}/{step}") as key:
                totals = trainer.gradients(chosen, key)
            rate = spec.learning_rate_at(step, len(examples))
            if not (math.isfinite(totals.loss) and math.isfinite(totals.gradient_norm)):
                raise TrainingError(_not_finite(step, rate, totals, model, statistics))
            trainer.update(rate)
            read = step == 1 or step % STATISTICS_EVERY == 0 or step == last_step
            now = time.perf_counter()
            record = StepRecord(
                step=step,
                epoch=epoch,
                loss=totals.loss / totals.labels,
                learning_rate=rate,
                tokens=totals.tokens,
                seconds=now - start,
                tokens_per_second=totals.tokens / (now - begun),
                time_ms=time.time_ns() // 1_000_000,
                statistics=statistics(model) if read and statistics else {},
            )
            yield record, totals
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        model.eval()


def _optimizer_batches(
    spec: TrainSpec, examples: Sequence[Example], seed: int
) -> Iterator[tuple[int, int, list[Example]]]:
    """Yields step (from 1), epoch (from 0) and examples of each batch that has labels."""
    per_epoch = spec.steps_per_epoch(len(examples))
    for epoch in range(spec.epochs):
        batches = epoch_batches(len(examples), spec.batch_size, seed=seed, epoch=epoch)
        for index, rows in enumerate(batches):
            chosen = [examples[row] for row in rows]
            if any(example.num_labels for example in chosen):
                yield epoch * per_epoch + index + 1, epoch, chosen


@contextlib.contextmanager
def _seeded(device: torch.device, key: str) -> Iterator[int]:
    """Seeds the global generators, and puts them back afterwards; yields the seed, 63 bits.

    One seed per step, so that a step needs nothing of the steps before it.
    """
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(number)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield number


def _not_finite(
    step: int, rate: float, totals: _Totals, model: nn.Module, statistics: Statistics | None
) -> str:
    gate = statistics(model).get("gate/max_abs") if statistics else None
    shown = "" if gate is None else f", largest gate {gate:.3g}"
    return (
        f"step {step}: the loss is {totals.loss / totals.labels:.4g} and the gradient's norm "
        f"{totals.gradient_norm:.4g} (learning rate {rate:.3g}{shown}); lower the learning rate "
        "or set max_gradient_norm"
    )


def _peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak of torch's allocator on CUDA, else of the process' resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
