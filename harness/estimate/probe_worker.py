"""The times of one model with one method: what a worker process of a probe does."""

from __future__ import annotations

import math
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.estimate.tokens import num_subjects
from harness.evaluation.tasks import TaskSpec, scored_together
from harness.execution.worker import prepare_worker
from harness.grid.schema import Cell
from harness.methods import METHODS, MethodOptions

if TYPE_CHECKING:
    from harness.data.instructions import Example
    from harness.data.rows import Row
    from harness.models.loading import Base

PROBE_STEPS = (14, 6)
"""Optimizer steps with whole batches, and with a quarter of one: the two give what a step costs by
itself and what each of its tokens does."""
WARM_UP_STEPS = 1
"""Leading steps of each measurement that are not counted."""
PROBE_ITEMS = (16, 64)
"""Items of each benchmark that are scored; the two give what a call costs and what an item does."""


@dataclass(frozen=True)
class ScoringTime:
    """Benchmarks that are scored together, on one model."""

    call_seconds: float
    item_seconds: float
    prepare_seconds: float
    """Once in a worker, per item: prompts are built and encoded."""


@dataclass(frozen=True)
class PairTime:
    """One model with one method."""

    load_seconds: float
    """The base model is loaded and the method applied."""
    fixed_seconds: float = 0.0
    """Time of a training run outside of its steps: the optimizer's set-up, the method's probes."""
    row_seconds: float = 0.0
    """A training row is tokenised."""
    step_seconds: float = 0.0
    """Time of an optimizer step, whatever its size."""
    token_seconds: float = 0.0
    """Time of each token of a step."""
    tokens_per_row: float = 0.0
    save_seconds: float = 0.0
    scoring: Mapping[str, ScoringTime] = field(default_factory=dict)
    """By the names of benchmarks that are scored together, joined by +."""
    start_seconds: float = 0.0
    """Start of a worker process: imports and the first use of each library."""
    cpu_share: float = 1.0
    """CPU time by wall-clock time of the probe: below 1 the worker was kept waiting."""


@dataclass(frozen=True)
class ProbeSettings:
    """Where and how workers run."""

    data_root: Path | None
    threads: int


_STATE: dict[str, Any] = {}
"""State of a worker process: its device, and whether it has worked before."""


def begin_worker(free: Any, threads: int, parent: int) -> None:
    """Makes this process a worker on its device, before it imports anything."""
    device = free.get()
    prepare_worker(device, threads, parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing of a probe is kept
    _STATE.update(device="cpu" if device == "cpu" else "cuda", worked=False)


@dataclass(frozen=True)
class _Subject:
    """A loaded model with a method applied, and the clock that times it."""

    cell: Cell
    settings: ProbeSettings
    device: str
    clock: Callable[[], float]
    base: Base
    model: Any


def measure(cell: Cell, settings: ProbeSettings) -> PairTime:
    """The times of one model and method; runs in a worker process.

    Raises:
        ZbenchError: it cannot be trained or scored.
    """
    device = _STATE.get("device", "cpu")
    clock = clock_of(device, settings.threads)
    wall, cpu = time.perf_counter(), time.process_time()
    start = 0.0
    if not _STATE.get("worked"):
        # All that the process has used so far, its imports and the first use of each library.
        _warm_up(cell, settings, device, clock)
        start = time.process_time() if clock is time.process_time else clock() - wall
        _STATE["worked"] = True
    rows = _read_rows(cell, settings)
    begun = clock()
    subject = _load(cell, settings, device, clock)
    times: dict[str, Any] = {"load_seconds": clock() - begun}
    if rows:
        times |= _measure_training(subject, rows)
    times["scoring"] = {
        "+".join(task.name for task in group): _measure_scoring(subject, group)
        for group in scored_together(cell.tasks)
    }
    spent = time.perf_counter() - wall
    # Where times are wall-clock times, what kept the worker waiting is in them.
    counted = clock is time.process_time
    share = min(1.0, (time.process_time() - cpu) / spent) if counted else 1.0
    return PairTime(**times, start_seconds=start, cpu_share=share)


def clock_of(device: str, threads: int) -> Callable[[], float]:
    """CPU time for one thread on a CPU, else wall-clock time with no work left on the GPU."""
    if device == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def clock() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def _warm_up(cell: Cell, settings: ProbeSettings, device: str, clock: Callable[[], float]) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    untrained = cell.model_copy(update={"method": "base", "options": MethodOptions()})
    subject = _load(untrained, settings, device, clock)
    for group in scored_together(cell.tasks)[:1]:
        _evaluate(subject, group, 2)


def _read_rows(cell: Cell, settings: ProbeSettings) -> tuple[Row, ...]:
    """The rows that a cell is trained on; none where it trains nothing."""
    from harness.data.validation import read_training

    if cell.train is None:
        return ()
    assert cell.fraction is not None
    return read_training(cell.data, cell.fraction, cell.seed_of("subset"), settings.data_root).rows


def _load(cell: Cell, settings: ProbeSettings, device: str, clock: Callable[[], float]) -> _Subject:
    from harness.models.devices import resolve_precision
    from harness.models.loading import load_base

    precision = resolve_precision(cell.train.precision if cell.train else "auto", device)
    base = load_base(cell.model, data_root=settings.data_root, device=device, precision=precision)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed_of("initialization"))
    return _Subject(cell, settings, device, clock, base, model)


def _measure_training(subject: _Subject, rows: Sequence[Row]) -> dict[str, float]:
    """Trains a few steps, which spoils the model; its speed is all that is wanted."""
    from harness.data.instructions import tokenize
    from harness.models.loading import save_trained

    train, clock = subject.cell.train, subject.clock
    assert train is not None
    points: list[tuple[float, float]] = []
    times: dict[str, float] = {}
    for steps, share in zip(PROBE_STEPS, (1, 4), strict=True):
        batch = max(1, train.batch_size // share)
        chosen = [rows[i % len(rows)] for i in range(batch * steps)]
        begun = clock()
        examples = tokenize(
            chosen,
            subject.base.tokenizer,
            train.max_length,
            template=subject.cell.data.template,
            system=subject.cell.data.system,
            all_in_loss=subject.cell.data.all_in_loss,
        )
        tokenized = clock()
        marks = _train(subject, examples, batch)
        whole = clock() - tokenized
        counted = marks[WARM_UP_STEPS:]
        seconds = (counted[-1][0] - marks[WARM_UP_STEPS - 1][0]) / len(counted)
        points.append((sum(tokens for _, tokens in counted) / len(counted), seconds))
        if share == 1:
            times["fixed_seconds"] = max(0.0, whole - seconds * len(marks))
            times["row_seconds"] = (tokenized - begun) / len(examples)
            times["tokens_per_row"] = sum(len(e.token_ids) for e in examples) / len(examples)
    times["step_seconds"], times["token_seconds"] = line_through(*points)
    begun = clock()
    with tempfile.TemporaryDirectory() as folder:
        save_trained(subject.model, Path(folder))
    return times | {"save_seconds": clock() - begun}


def _train(
    subject: _Subject, examples: Sequence[Example], batch_size: int
) -> list[tuple[float, int]]:
    """Trains one epoch, and returns when each step ended and how many tokens it had."""
    from harness.training.callback import OnStep
    from harness.training.loop import fit
    from harness.training.method_statistics import MethodStatistics

    train, base, method = subject.cell.train, subject.base, METHODS[subject.cell.method]
    assert train is not None
    marks: list[tuple[float, int]] = []
    # A rate of nearly nothing: the probe measures steps of a model that stays itself.
    spec = train.model_copy(
        update={
            **{"epochs": 1, "max_steps": None, "batch_size": batch_size, "schedule": "constant"},
            **{"learning_rate": 1e-8, "base_learning_rate": None},
            **{"warmup_epochs": None, "warmup_ratio": None, "warmup_steps": None},
        }
    )
    fit(
        subject.model,
        examples,
        spec,
        seed=0,
        device=subject.device,
        precision=base.identity["precision"],
        pad_token_id=int(base.tokenizer.eos_token_id),
        callbacks=[
            MethodStatistics.of(method, subject.model),
            OnStep(lambda record: marks.append((subject.clock(), record.tokens))),
        ],
    )
    return marks


def line_through(large: tuple[float, float], small: tuple[float, float]) -> tuple[float, float]:
    """(intercept, slope) of the line through two points, neither of them negative.

    Where noise or the machine makes the smaller one more expensive than a line allows, the mean of
    the larger one is all that is known.
    """
    (x, y), (u, v) = large, small
    if x <= u:
        return 0.0, y / x if x else 0.0
    slope = max(0.0, (y - v) / (x - u))
    intercept = y - slope * x
    return (intercept, slope) if intercept >= 0 else (0.0, y / x)


def _measure_scoring(subject: _Subject, group: Sequence[TaskSpec]) -> ScoringTime:
    points: list[tuple[float, float]] = []
    prepare = 0.0
    for items in reversed(PROBE_ITEMS):
        begun = subject.clock()
        done = _evaluate(subject, group, items)
        middle = subject.clock()
        _evaluate(subject, group, items)  # with the prompts of the first
        first, again = middle - begun, subject.clock() - middle
        prepare = prepare or max(0.0, first - again) / done
        points.append((done, min(first, again)))
    call, item = line_through(*points)
    return ScoringTime(call_seconds=call, item_seconds=item, prepare_seconds=prepare)


def _evaluate(subject: _Subject, group: Sequence[TaskSpec], items: int) -> float:
    """Scores about `items` items, which a group has per subject, and returns how many it were."""
    from harness.evaluation import evaluate_together

    limited = []
    for task in group:
        limit = math.ceil(items / num_subjects(task))
        limited.append(task.model_copy(update={"limit": min(limit, task.limit or limit)}))
    outcome = evaluate_together(
        subject.model,
        subject.base.tokenizer,
        limited,
        data_root=subject.settings.data_root,
        precision=subject.base.identity["precision"],
    )
    return sum(one.scores[0].n for one in outcome) / len(outcome)
