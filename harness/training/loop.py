"""The training loop: one for all methods; whatever parameters require gradients are trained."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from harness.data.instructions import (
    DROPPED,
    Example,
    count_cut,
    cut_note,
    drop_note,
    epoch_batches,
    lost_note,
)
from harness.errors import TrainingError
from harness.methods.method import TrainingHook
from harness.models.advice import ADVICE
from harness.models.loading import count_parameters
from harness.models.numbers import frozen_fault, overflow_cause
from harness.models.pictures import PictureFeatures
from harness.records.results import TrainResult
from harness.training.callback import Callback, TrainingRun
from harness.training.checkpoint import Checkpoints, TrainingState
from harness.training.loss_watch import explosion_note
from harness.training.micro_batches import resolve_budget
from harness.training.progress import Progress, StepRecord
from harness.training.spec import TrainSpec
from harness.training.step import BatchTotals, TrainStep

logger = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    examples: Sequence[Example],
    spec: TrainSpec,
    *,
    seed: int,
    device: str,
    precision: str,
    pad_token_id: int,
    callbacks: Sequence[Callback] = (),
    resume: TrainingState | None = None,
    data_sha256: str = "",
    hook: TrainingHook | None = None,
    pictures: PictureFeatures | None = None,
) -> TrainResult:
    """Trains what requires gradients in `model`, in place, and leaves it in evaluation mode.

    Bitwise reproducible on CPU (same thread count), also when resumed, whatever the callbacks. Any
    token budget gives the same result up to rounding, dropout included.

    Args:
        model: a causal language model on `device`; its trained tensors are fp32.
        examples: the training examples; those without labels are skipped.
        seed: decides the order of the examples and the dropout masks.
        device: a torch device, such as `cpu` or `cuda`.
        precision: the compute precision (autocast dtype), also the storage dtype of frozen weights;
            `fp32`, `bf16` or `fp16`.
        pad_token_id: any token of the vocabulary; no result depends on it.
        callbacks: follow the run, in this order; `Checkpoints` comes last, since a run that is told
            to stop ends there.
        resume: a checkpoint of this run.
        data_sha256: the SHA-256 of the training rows, for the result.
        hook: what the method does between steps; a callback keeps its state (`HookState`).
        pictures: features of the pictures of all examples, those of callbacks included.

    Raises:
        Stopped: a signal asked for it; a checkpoint is written.
        TrainingError: a loss or gradient is not finite (raised before the optimizer step), no
            example has a label, or the token budget is less than the longest sequence.
    """
    _check(spec, examples)
    assert not any(isinstance(callback, Checkpoints) for callback in callbacks[:-1])
    train_step = TrainStep(
        model, spec, device=torch.device(device), precision=precision, pad_token_id=pad_token_id,
        hook=hook, pictures=pictures,
    )  # fmt: skip
    resolve_budget(spec.token_budget, examples, train_step.device)  # fail early
    training = TrainingRun(
        train_step, examples, Progress.begin(spec.num_epochs(len(examples))), tuple(callbacks)
    )
    if resume is not None:
        training.load_state(resume.tensors)
        training.progress = resume.progress
        resume.close()
    model.eval()
    for callback in training.callbacks:
        callback.on_train_begin(training)
    seconds = _take_steps(training, seed)
    training.progress.peak_memory_bytes = train_step.ranks.highest(training.peak_memory_bytes)
    for callback in training.callbacks:
        callback.on_train_end(training)
    return _result(training, seconds, precision, device, data_sha256)


def _check(spec: TrainSpec, examples: Sequence[Example]) -> None:
    if not any(example.num_labels for example in examples):
        raise TrainingError(
            f"none of {len(examples)} examples has a response within max_length "
            f"{spec.max_length}; raise max_length"
        )
    warmup, steps = spec.warmup(len(examples)), spec.total_steps(len(examples))
    if warmup >= steps:
        logger.warning(
            "the warm-up (%g steps) is not shorter than the training run (%d steps): the learning "
            "rate ends at %.3g and never reaches its peak of %.3g",
            warmup,
            steps,
            spec.learning_rate_at(steps, len(examples)),
            spec.peak_learning_rate,
        )


def _take_steps(training: TrainingRun, seed: int) -> float:
    """Takes the steps that follow those of the progress; returns the seconds of all steps."""
    train_step, progress = training.train_step, training.progress
    spec, examples = train_step.spec, training.examples
    if train_step.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(train_step.device)
    start = time.perf_counter() - progress.seconds
    train_step.model.train()
    if progress.step:
        train_step.kernels.resume(progress.attention, progress.norms)
    try:
        for step, epoch, batch, is_last in _optimizer_batches(
            spec, examples, seed, progress.step + 1
        ):
            begun = time.perf_counter()
            if not progress.step:
                _choose_kernels(training, batch, f"step/{seed}/{step}")
            with _seeded(train_step.device, f"step/{seed}/{step}") as step_seed:
                totals = train_step.backward(batch, step_seed)
            rate = spec.learning_rate_at(step, len(examples))
            _check_finite(training, step, rate, totals)
            for callback in training.callbacks:
                callback.on_gradients(training, step, totals)
            train_step.update(rate, skip=totals.skipped)
            metrics: dict[str, float] = {}
            for callback in training.callbacks:
                metrics |= callback.step_metrics(training, step)
            now = time.perf_counter()
            record = StepRecord(
                step=step,
                epoch=epoch,
                loss=totals.loss_sum / totals.num_labels,
                learning_rate=rate,
                tokens=totals.num_tokens,
                seconds=now - start,
                tokens_per_second=totals.num_tokens / (now - begun),
                time_ms=time.time_ns() // 1_000_000,
                statistics=metrics,
            )
            progress.add(record, totals)
            if is_last:
                start += _end_epoch(training, epoch)
            for callback in training.callbacks:
                callback.on_step(training, record)
    finally:
        train_step.optimizer.zero_grad(set_to_none=True)
        train_step.kernels.remove()
        train_step.model.eval()
    if not progress.records:
        raise TrainingError(
            f"none of the examples of the first {spec.max_steps} steps has a response within "
            f"max_length {spec.max_length}; raise max_steps or max_length"
        )
    return time.perf_counter() - start


def _choose_kernels(training: TrainingRun, batch: Sequence[Example], seed_string: str) -> None:
    """Before the first step, on its batch; what differs is noted in the result."""
    train_step, progress = training.train_step, training.progress
    with _seeded(train_step.device, seed_string) as step_seed:
        faults = train_step.choose_kernels(batch, step_seed)
    for fault in faults:
        logger.warning("%s", fault)
    progress.kernels_note = "; ".join(faults) or None
    kernels = train_step.kernels
    progress.attention, progress.norms = kernels.attention, kernels.norms_kind


def _end_epoch(training: TrainingRun, epoch: int) -> float:
    """Calls the callbacks after an epoch; returns the seconds that they took."""
    begun = time.perf_counter()
    for callback in training.callbacks:
        callback.on_epoch(training, epoch)
    return time.perf_counter() - begun


def _optimizer_batches(
    spec: TrainSpec, examples: Sequence[Example], seed: int, first: int
) -> Iterator[tuple[int, int, list[Example], bool]]:
    """Yields step, epoch (from 0) and examples of the scheduled batches, from step `first` on.

    The flag behind them says whether the step is the epoch's last. A batch without labels is
    skipped, and its number left out.
    """
    per_epoch, total = spec.steps_per_epoch(len(examples)), spec.total_steps(len(examples))
    for epoch in range(spec.num_epochs(len(examples))):
        if (epoch + 1) * per_epoch < first:
            continue
        batches = epoch_batches(len(examples), spec.batch_size, seed=seed, epoch=epoch)
        numbered = [
            (step, indices)
            for step, indices in enumerate(batches, start=epoch * per_epoch + 1)
            if step <= total and any(examples[index].num_labels for index in indices)
        ]
        for step, indices in numbered:
            if step >= first:
                batch = [examples[index] for index in indices]
                yield step, epoch, batch, step == numbered[-1][0]


@contextlib.contextmanager
def _seeded(device: torch.device, seed_string: str) -> Iterator[int]:
    """Seeds the global generators from a string, restores them after; yields the 63-bit seed.

    One seed per step, so that a step needs nothing of the steps before it.
    """
    step_seed = int.from_bytes(hashlib.sha256(seed_string.encode()).digest()[:8], "big") >> 1
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(step_seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(step_seed)
        yield step_seed


def _check_finite(training: TrainingRun, step: int, rate: float, totals: BatchTotals) -> None:
    """Raises TrainingError for a loss or gradient that is not finite, before the optimizer step."""
    if math.isfinite(totals.loss_sum) and (math.isfinite(totals.gradient_norm) or totals.skipped):
        return
    notes = [callback.failure_note(training) for callback in training.callbacks]
    train_step = training.train_step
    half = train_step.compute_dtype == torch.float16
    cause = frozen_fault(train_step.model) or ADVICE["diverged"]
    if not training.progress.records:  # nothing has been trained yet
        cause = overflow_cause(train_step.model, "fp16" if half else None, trained=False)
    rest = "; ".join([cause, *filter(None, notes)])
    raise TrainingError(
        f"step {step}: the loss is {totals.loss_sum / totals.num_labels:.4g} and the gradient's "
        f"norm {totals.gradient_norm:.4g} (learning rate {rate:.3g}); {rest}"
    )


def _result(
    training: TrainingRun, seconds: float, precision: str, device: str, data_sha256: str
) -> TrainResult:
    progress = training.progress
    trainable, total = count_parameters(training.train_step.model)
    lost = sum(not example.num_labels for example in training.examples)
    cut, count = count_cut(training.examples), len(training.examples)
    dropped = sum(example is DROPPED for example in training.examples)
    notes = [
        progress.kernels_note,
        explosion_note(progress.records),
        lost_note(lost - dropped, count),
        drop_note(dropped, count),
        cut_note(cut, count),
    ]
    return TrainResult(
        steps=len(progress.records) - training.train_step.loss_scale.skipped_steps,
        examples=count - lost,
        lost_examples=lost,
        cut_examples=cut,
        tokens=progress.tokens,
        epoch_losses=tuple(
            loss / count
            for loss, count in zip(progress.losses, progress.labels, strict=True)
            if count  # a last pass may be cut before its first batch with labels
        ),
        trainable_parameters=trainable,
        total_parameters=total,
        seconds=seconds,
        tokens_per_second=progress.tokens / seconds,
        peak_memory_bytes=progress.peak_memory_bytes,
        peak_learning_rate=progress.highest_rate,
        precision=precision,
        device=device,
        data_sha256=data_sha256,
        final_statistics=training.result_metrics(),
        validation_losses=tuple(progress.validation_losses),
        note="; ".join(filter(None, notes)) or None,
        gradient_checkpointing=training.train_step.spec.gradient_checkpointing,
        attention=training.train_step.kernels.attention,
        norms=training.train_step.kernels.norms_kind,
    )
