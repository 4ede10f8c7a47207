"""The training loop: one for all methods; whatever parameters require gradients are trained."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from harness.data.instructions import Example, epoch_batches
from harness.errors import TrainingError
from harness.methods.method import Trace
from harness.methods.zero_init.probe import PROBE_TEXTS
from harness.models.loading import count_parameters
from harness.records.results import TrainResult
from harness.training.checkpoint import ACTIONS, Checkpoints, TrainingState
from harness.training.micro_batches import resolve_budget
from harness.training.progress import Progress, StepRecord
from harness.training.signals import Stopped
from harness.training.spec import TrainSpec
from harness.training.step import BatchTotals, Trainer

TRACE = "trace/"
"""What the names of a trace's own tensors begin with in a checkpoint."""
STATISTICS_EVERY = 10
"""Optimizer steps between two readings of a method's statistics: each reading waits for the
device. The first and the last step are always read."""

Statistics = Callable[[nn.Module], dict[str, float]]

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
    data_sha256: str,
    statistics: Statistics | None = None,
    trace: Trace | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    token_budget: int | None = None,
    checkpoints: Checkpoints | None = None,
    resume: TrainingState | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> TrainResult:
    """Trains what requires gradients in `model`, in place, and leaves it in evaluation mode.

    On a CPU the same call gives the same bits, traced or not, in one go or resumed. Any token
    budget gives the same result up to rounding, dropout included.

    Args:
        model: a causal language model on `device`; its trained tensors are fp32.
        examples: what to train on; those without labels are passed over.
        spec: how.
        seed: decides the order of the examples and the draws of dropout.
        device: such as `cpu` or `cuda`.
        precision: of the frozen base, `fp32`, `bf16` or `fp16`.
        pad_token_id: any token of the vocabulary; no result depends on it.
        data_sha256: of the rows behind `examples`; kept in the result.
        statistics: the method's own, read every `STATISTICS_EVERY` steps.
        trace: begun on `model`; read in the place of `statistics`, and probed outside of the
            measured time. It keeps what it saw.
        on_step: told of every optimizer step that is taken here.
        token_budget: tokens of a forward pass; goes before that of `spec`.
        checkpoints: written when they are due; None to keep none.
        resume: a checkpoint of this very training, to go on from.
        warn: told once when the loss explodes; see `harness.training.progress.EXPLOSION_RATIO`.

    Raises:
        Stopped: a signal asked for it; a checkpoint is written.
        TrainingError: a loss or gradient is not finite (no weight is spoiled by it), no example has
            a label, or the token budget is less than the longest sequence.
    """
    _check(spec, examples)
    place = torch.device(device)
    trainer = Trainer(
        model,
        spec,
        device=place,
        precision=precision,
        pad_token_id=pad_token_id,
        token_budget=token_budget,
    )
    resolve_budget(trainer.token_budget, examples, place)  # all at once, not at the longest's turn
    texts = [example.token_ids for example in examples[:PROBE_TEXTS]]
    progress = Progress.begin(spec.epochs)
    if resume is not None:
        progress = _restore(resume, trainer, trace)
    else:
        _probe(trainer, trace, "before", texts)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    start = time.perf_counter() - progress.seconds
    exploded = progress.note() is not None
    for record, totals in _steps(
        trainer, examples, seed, statistics, trace, progress, start, checkpoints
    ):
        progress.add(record, totals)
        if on_step is not None:
            on_step(record)
        if not exploded and (fault := progress.explosion()):
            exploded = True
            warn(fault)
        if checkpoints is None:
            continue
        # All processes of a cell do the same: the most that any of them wishes.
        action = ACTIONS[trainer.ranks.highest(ACTIONS.index(checkpoints.due_action()))]
        if action != "nothing":
            progress.peak_memory_bytes = _peak_memory_bytes(place, progress)
            checkpoints.save(_state(progress, trainer, trace), wait=action == "stop")
            if action == "stop":
                raise Stopped
    if checkpoints is not None:
        checkpoints.wait()
    seconds = time.perf_counter() - start
    peak_memory_bytes = trainer.ranks.highest(_peak_memory_bytes(place, progress))
    _probe(trainer, trace, "after", texts)
    trainable, total = count_parameters(model)
    return TrainResult(
        steps=spec.total_steps(len(examples)),
        examples=len(examples),
        tokens=progress.tokens,
        epoch_losses=tuple(
            loss / count for loss, count in zip(progress.losses, progress.labels, strict=True)
        ),
        trainable_parameters=trainable,
        total_parameters=total,
        seconds=seconds,
        tokens_per_second=progress.tokens / seconds,
        peak_memory_bytes=peak_memory_bytes,
        peak_learning_rate=progress.highest_rate,
        precision=precision,
        device=device,
        data_sha256=data_sha256,
        final_statistics=_figures(model, statistics, trace) | trainer.figures(),
        note=progress.note(),
    )


def _state(progress: Progress, trainer: Trainer, trace: Trace | None) -> TrainingState:
    seen = trace.state() if trace is not None else {}
    traced = {f"{TRACE}{name}": torch.from_numpy(array) for name, array in seen.items()}
    return TrainingState(progress, trainer.state() | traced)


def _restore(state: TrainingState, trainer: Trainer, trace: Trace | None) -> Progress:
    """Puts the weights, the optimizer and the trace back to where a checkpoint was written."""
    tensors = state.tensors
    trainer.load_state({k: v for k, v in tensors.items() if not k.startswith(TRACE)})
    seen = {k.removeprefix(TRACE): v.numpy() for k, v in tensors.items() if k.startswith(TRACE)}
    if trace is not None:
        trace.load_state(seen)
    return state.progress


def _probe(
    trainer: Trainer,
    trace: Trace | None,
    when: Literal["before", "after"],
    texts: Sequence[Sequence[int]],
) -> None:
    """Lets the trace look at the model as it is trained, but in evaluation mode."""
    if trace is None:
        return
    trainer.model.eval()  # `_steps` sets the mode that it needs
    with torch.no_grad(), trainer.precision():
        trace.probe(when, texts)


def _figures(
    model: nn.Module, statistics: Statistics | None, trace: Trace | None
) -> dict[str, float]:
    found: dict[str, float] = {}
    if trace is not None:
        found = trace.statistics()
    elif statistics is not None:
        found = statistics(model)
    # A result is JSON, which has finite numbers only; a figure is no reason to lose a training.
    return {name: value for name, value in found.items() if math.isfinite(value)}


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
    trainer: Trainer,
    examples: Sequence[Example],
    seed: int,
    statistics: Statistics | None,
    trace: Trace | None,
    progress: Progress,
    start: float,
    checkpoints: Checkpoints | None,
) -> Iterator[tuple[StepRecord, BatchTotals]]:
    """Takes the steps behind those of `progress`, and yields each once it is taken."""
    spec, model = trainer.spec, trainer.model
    last_step, first = spec.total_steps(len(examples)), progress.step + 1
    model.train()
    try:
        for step, epoch, chosen in _optimizer_batches(spec, examples, seed, first):
            begun = time.perf_counter()
            with _seeded(trainer.device, f"step/{seed}/{step}") as key:
                totals = trainer.gradients(chosen, key)
            rate = spec.learning_rate_at(step, len(examples))
            finite = math.isfinite(totals.gradient_norm) or totals.skipped
            if not (math.isfinite(totals.loss) and finite):
                raise TrainingError(_not_finite(step, rate, totals, model, statistics, checkpoints))
            read = step == 1 or step % STATISTICS_EVERY == 0 or step == last_step
            read = read and not totals.skipped
            if read and trace:
                trace.observe()
            trainer.update(rate)
            figures: Mapping[str, float] = {}
            if read:
                figures = trace.read(step) if trace else statistics(model) if statistics else {}
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
                statistics=figures,
            )
            yield record, totals
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        model.eval()


def _optimizer_batches(
    spec: TrainSpec, examples: Sequence[Example], seed: int, first: int
) -> Iterator[tuple[int, int, list[Example]]]:
    """Yields step, epoch (from 0) and examples of each batch that has labels, from a step on."""
    per_epoch = spec.steps_per_epoch(len(examples))
    for epoch in range(spec.epochs):
        batches = epoch_batches(len(examples), spec.batch_size, seed=seed, epoch=epoch)
        for step, rows in enumerate(batches, start=epoch * per_epoch + 1):
            if step < first:
                continue
            chosen = [examples[row] for row in rows]
            if any(example.num_labels for example in chosen):
                yield step, epoch, chosen


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
    step: int,
    rate: float,
    totals: BatchTotals,
    model: nn.Module,
    statistics: Statistics | None,
    checkpoints: Checkpoints | None,
) -> str:
    gate = statistics(model).get("gate/max_abs") if statistics else None
    shown = "" if gate is None else f", largest gate {gate:.3g}"
    kept = ""
    if checkpoints is not None:
        checkpoints.wait()
        if checkpoints.last is not None:
            kept = f"; the last good checkpoint is {checkpoints.last}"
    return (
        f"step {step}: the loss is {totals.loss / totals.labels:.4g} and the gradient's norm "
        f"{totals.gradient_norm:.4g} (learning rate {rate:.3g}{shown}); lower the learning rate "
        f"or set max_gradient_norm{kept}"
    )


def _peak_memory_bytes(device: torch.device, progress: Progress) -> int:
    """Returns the peak of torch's allocator on CUDA, else of the process' resident set.

    That of the training's earlier processes counts too.
    """
    if device.type == "cuda":
        peak = int(torch.cuda.max_memory_allocated(device))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = peak if sys.platform == "darwin" else 1024 * peak
    return max(peak, progress.peak_memory_bytes)
