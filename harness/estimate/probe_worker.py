"""One model with one method, timed: what a worker process of a probe does."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.estimate.tokens import num_subjects
from harness.evaluation.tasks import TaskSpec, scored_together
from harness.execution.devices import cuda_visible
from harness.grid.schema import Cell

if TYPE_CHECKING:
    from harness.data.instructions import Instruction
    from harness.models.loading import Base

PROBE_STEPS = (14, 6)
"""Optimizer steps with whole batches, and with a quarter of one: the two give what a step costs by
itself and what each of its tokens does."""
WARM_UP_STEPS = 1
"""Of each, not counted."""
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
    """Of a training outside of its steps: the optimizer's set-up, the method's probes."""
    row_seconds: float = 0.0
    """A training row is tokenised."""
    step_seconds: float = 0.0
    """Of an optimizer step, whatever its size."""
    token_seconds: float = 0.0
    """Of each of its tokens."""
    tokens_per_row: float = 0.0
    save_seconds: float = 0.0
    scoring: Mapping[str, ScoringTime] = field(default_factory=dict)
    """By the names of benchmarks that are scored together, joined by +."""
    start_seconds: float = 0.0
    """Of a worker process: imports and the first use of each library."""
    cpu_share: float = 1.0
    """CPU time by wall-clock time of the probe: below 1 the worker was kept waiting."""


@dataclass(frozen=True)
class ProbeSettings:
    """Where and how workers run."""

    data_root: Path | None
    threads: int


_STATE: dict[str, Any] = {}
"""Of a worker process: its device, and whether it has worked before."""


def begin_worker(places: Any, threads: int) -> None:
    """Sets a worker process up on its device, before it imports anything."""
    device = places.get()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = cuda_visible(device) if device != "cpu" else ""
    nowhere = os.open(os.devnull, os.O_WRONLY)  # libraries' chatter
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    _STATE.update(device="cpu" if device == "cpu" else "cuda", worked=False)


def measure(cell: Cell, settings: ProbeSettings) -> PairTime:
    """Returns the times of one model and method; runs in a worker process.

    Raises:
        ZbenchError: it cannot be trained or scored.
    """
    device = _STATE.get("device", "cpu")
    clock = clock_of(device, settings.threads)
    wall, cpu = time.perf_counter(), time.process_time()
    start = 0.0
    if not _STATE.get("worked"):
        # All that the process has used so far, its imports and the first use of each library.
        _warm_up(cell, settings, device)
        start = time.process_time() if clock is time.process_time else clock() - wall
        _STATE["worked"] = True
    times = _measure(cell, settings, device, clock)
    spent = time.perf_counter() - wall
    # Where times are wall-clock times, what kept the worker waiting is in them.
    counted = clock is time.process_time
    share = min(1.0, (time.process_time() - cpu) / spent) if counted else 1.0
    return PairTime(**times, start_seconds=start, cpu_share=share)


def clock_of(device: str, threads: int) -> Callable[[], float]:
    """Returns CPU time for one thread on a CPU, else wall-clock time with nothing left to do."""
    if device == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def clock() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def _warm_up(cell: Cell, settings: ProbeSettings, device: str) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    from harness.evaluation import evaluate_together

    base = _load(cell, settings, device)
    for group in scored_together(cell.tasks)[:1]:
        evaluate_together(
            base.model,
            base.tokenizer,
            [_limited(task, 2) for task in group],
            data_root=settings.data_root,
            precision=base.identity["precision"],
        )


def _load(cell: Cell, settings: ProbeSettings, device: str) -> Base:
    from harness.models.devices import resolve_precision
    from harness.models.loading import load_base

    precision = resolve_precision(cell.train.precision if cell.train else "auto", device)
    return load_base(cell.model, data_root=settings.data_root, device=device, precision=precision)


def _measure(
    cell: Cell, settings: ProbeSettings, device: str, clock: Callable[[], float]
) -> dict[str, Any]:
    from harness.data.instructions import choose, read_instructions
    from harness.methods import METHODS

    rows: tuple[Instruction, ...] = ()
    if cell.train is not None:
        assert cell.fraction is not None
        data = read_instructions(cell.data, data_root=settings.data_root)
        rows = choose(data.rows, cell.fraction, cell.seed or 0)
    begun = clock()
    base = _load(cell, settings, device)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed or 0)
    times: dict[str, Any] = {"load_seconds": clock() - begun}
    if cell.train is not None:
        times |= _measure_training(cell, base, model, rows, device, clock)
    times["scoring"] = {
        "+".join(task.name for task in group): _measure_scoring(
            group, base, model, settings.data_root, clock
        )
        for group in scored_together(cell.tasks)
    }
    return times


def _measure_training(
    cell: Cell,
    base: Base,
    model: Any,
    rows: Sequence[Instruction],
    device: str,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Trains a few steps, which spoils the model; its speed is all that is wanted."""
    from harness.data.instructions import tokenize
    from harness.methods import METHODS
    from harness.models.loading import save_trained
    from harness.training.callback import OnStep
    from harness.training.loop import fit
    from harness.training.method_statistics import MethodStatistics
    from harness.training.progress import StepRecord

    train, method = cell.train, METHODS[cell.method]
    assert train is not None
    points: list[tuple[float, float]] = []
    fixed, row_seconds, mean = 0.0, 0.0, 0.0
    for steps, share in zip(PROBE_STEPS, (1, 4), strict=True):
        batch = max(1, train.batch_size // share)
        chosen = [rows[i % len(rows)] for i in range(batch * steps)]
        begun = clock()
        examples = tokenize(chosen, base.tokenizer, train.max_length)
        if share == 1:
            row_seconds = (clock() - begun) / len(chosen)
            mean = sum(len(one.token_ids) for one in examples) / len(examples)
        # A rate of nearly nothing: the probe measures steps of a model that stays itself.
        spec = train.model_copy(
            update={
                **{"epochs": 1, "batch_size": batch, "schedule": "constant"},
                **{"learning_rate": 1e-8, "base_learning_rate": None},
                **{"warmup_epochs": None, "warmup_ratio": None, "warmup_steps": None},
            }
        )
        marks: list[tuple[float, int]] = []

        def on_step(record: StepRecord, marks: list[tuple[float, int]] = marks) -> None:
            marks.append((clock(), record.tokens))

        begun = clock()
        fit(
            model,
            examples,
            spec,
            seed=0,
            device=device,
            precision=base.identity["precision"],
            pad_token_id=int(base.tokenizer.eos_token_id),
            callbacks=[MethodStatistics.of(method, model), OnStep(on_step)],
        )
        whole = clock() - begun
        counted = marks[WARM_UP_STEPS:]
        seconds = (counted[-1][0] - marks[WARM_UP_STEPS - 1][0]) / len(counted)
        points.append((sum(tokens for _, tokens in counted) / len(counted), seconds))
        if share == 1:
            fixed = max(0.0, whole - seconds * len(marks))
    step, token = line_through(*points)
    begun = clock()
    with tempfile.TemporaryDirectory() as folder:
        save_trained(model, Path(folder))
    return {
        "fixed_seconds": fixed,
        "row_seconds": row_seconds,
        "step_seconds": step,
        "token_seconds": token,
        "tokens_per_row": mean,
        "save_seconds": clock() - begun,
    }


def line_through(large: tuple[float, float], small: tuple[float, float]) -> tuple[float, float]:
    """Returns (intercept, slope) of the line through two points, neither of them negative.

    Where noise or the machine makes the smaller one dearer than a line allows, the mean of the
    larger one is all that is known.
    """
    (x, y), (u, v) = large, small
    if x <= u:
        return 0.0, y / x if x else 0.0
    slope = max(0.0, (y - v) / (x - u))
    intercept = y - slope * x
    return (intercept, slope) if intercept >= 0 else (0.0, y / x)


def _measure_scoring(
    group: Sequence[TaskSpec],
    base: Base,
    model: Any,
    data_root: Path | None,
    clock: Callable[[], float],
) -> ScoringTime:
    from harness.evaluation import evaluate_together

    points: list[tuple[float, float]] = []
    prepare = 0.0
    for items in reversed(PROBE_ITEMS):
        limited = [_limited(task, items) for task in group]
        evaluate = partial(
            evaluate_together,
            model,
            base.tokenizer,
            limited,
            data_root=data_root,
            precision=base.identity["precision"],
        )
        begun = clock()
        outcome = evaluate()
        first = clock() - begun
        begun = clock()
        evaluate()  # with the prompts of the first
        again = clock() - begun
        done = sum(one.scores[0].n for one in outcome) / len(outcome)
        prepare = prepare or max(0.0, first - again) / done
        points.append((done, min(first, again)))
    call, item = line_through(*points)
    return ScoringTime(call_seconds=call, item_seconds=item, prepare_seconds=prepare)


def _limited(task: TaskSpec, items: int) -> TaskSpec:
    """Returns the task cut to about `items`, which a group has per subject."""
    per_task = math.ceil(items / num_subjects(task))
    return task.model_copy(update={"limit": min(per_task, task.limit or per_task)})
