"""Scoring one cell: its benchmarks, group by group, each stored as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.cell.overlap import find_overlap
from harness.cell.pictures import PictureEncoder
from harness.cell.settings import CellContext
from harness.data.pins import training_note
from harness.errors import EvaluationError
from harness.grid.folders import items_path
from harness.methods.zero_init.pictures import trained_with
from harness.models.devices import is_out_of_memory
from harness.records.environment import describe_environment
from harness.records.events import Scoring
from harness.records.files import write_frame
from harness.records.prompts import Prompt, shortened_prompt
from harness.records.results import CellResult, write_result

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.evaluation.scores import TaskOutcome
    from harness.evaluation.tasks import TaskSpec
    from harness.models.loading import Base


def check_tasks(context: CellContext, tasks: Sequence[TaskSpec]) -> None:
    """Makes the prompts of those benchmarks that only lm-eval itself can tell the faults of.

    They are kept for scoring, so that a fault of their data or their YAML is told before training.

    Raises:
        DataError: their data cannot be read.
        EvaluationError: lm-eval cannot make its prompts from the data.
    """
    own = [task for task in tasks if task.benchmark.members]
    if not own:
        return
    from harness.evaluation.loading import load_benchmark

    for task in own:
        loaded = load_benchmark(task, context.settings.data_root)
        if not task.apply_chat_template:  # whose prompts need the model's tokenizer
            loaded.build_requests()


def score_cell(
    context: CellContext,
    base: Base,
    model: PreTrainedModel,
    tasks: Sequence[TaskSpec],
    result: CellResult,
) -> CellResult:
    """The cell's result so far with the scores of more benchmarks, stored one by one.

    With each score its per-item records are stored. `base` gives the tokenizer and the precision.

    Raises:
        EvaluationError: a benchmark cannot be scored; the scores before it are stored.
    """
    from harness.evaluation.tasks import scored_together

    cell = context.cell
    environment = describe_environment(context.settings.device)
    content = result.train.data_content_sha256 if result.train else None
    if cell.train is None:
        result = replace(result, environment=environment)
    encoder = PictureEncoder.of(context, result.image_encoder or trained_with(model))
    for group in scored_together(tasks):
        start = time.monotonic()
        outcomes = _evaluate(context, base, model, group, encoder)
        if encoder is not None:
            result = replace(result, image_encoder=encoder.identity)
        seconds = (time.monotonic() - start) / len(group)  # group time divided equally
        for task, outcome in zip(group, outcomes, strict=True):
            name = outcome.scores[0].evaluation
            path = items_path(context.folder, task.name, name)
            written = {str(path.relative_to(context.folder)): write_frame(path, outcome.items)}
            result = result.with_scores(outcome.scores, seconds, environment)
            result = replace(result, files_sha256={**result.files_sha256, **written})
            result = replace(result, examples={**result.examples, **_example(context, base, task)})
            result = result.with_note(training_note(cell.data.published, content))
            write_result(context.folder, result)
            find_overlap(context, task, result)
            for warning in outcome.warnings:
                context.warn(f"{task.name}: {warning}")
    return result


def _example(context: CellContext, base: Base, task: TaskSpec) -> dict[str, Prompt]:
    """The first request of a benchmark that was just scored, as the model was given it."""
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.prompts import first_item

    loaded = load_benchmark(task, context.settings.data_root)
    return {task.name: shortened_prompt(first_item(loaded, base.tokenizer)[0])}


def _evaluate(
    context: CellContext,
    base: Base,
    model: PreTrainedModel,
    group: Sequence[TaskSpec],
    encoder: PictureEncoder | None,
) -> list[TaskOutcome]:
    from harness.evaluation import evaluate_together

    cell_id, name = context.cell.id, "+".join(task.name for task in group)
    try:
        return evaluate_together(
            model,
            base.tokenizer,
            group,
            data_root=context.settings.data_root,
            precision=base.identity["precision"],
            on_progress=lambda done, total: context.emit(
                Scoring(cell_id, name, done, total, time.time_ns() // 1_000_000)
            ),
            encode_pictures=encoder,
        )
    except Exception as fault:  # memory runs out with errors of many kinds; others pass
        if is_out_of_memory(fault):
            raise EvaluationError(
                f"{name}: out of memory with the smallest batches of requests; what is trained and "
                "scored is kept: free the GPU of other processes, or take a larger one, and run "
                "the same command again"
            ) from fault
        raise
