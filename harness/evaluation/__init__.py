"""Scores a model on one benchmark; light to import, heavy to call.

`benchmarks` lists what there is, `tasks` what a grid may ask for, `loading` builds lm-eval's task
objects, `scoring` runs their requests, and `scores` turns lm-eval's results into records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.evaluation.tasks import TaskSpec
from harness.results import TaskScore

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_BATCH_SIZE = 16
"""Requests per forward pass; fixed, because lm-eval's automatic size moves low bits of scores."""


@dataclass(frozen=True)
class TaskOutcome:
    """What evaluating one benchmark gave."""

    scores: tuple[TaskScore, ...]
    """Of the benchmark first, metric by metric; then of each subject where it is a group."""
    items: pandas.DataFrame
    """One row per item; the columns are in `scores.items_frame`."""


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSpec,
    *,
    data_root: Path | None,
    precision: str,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskOutcome:
    """Returns the scores of a model on one benchmark, with its items.

    The numbers are those of `lm_eval.simple_evaluate` on the same model and items. The model and
    the tokenizer are left as they were.

    Args:
        model: a causal language model, on its device.
        tokenizer: its tokenizer; BOS is added or not as the tokenizer itself does it.
        task: the benchmark, shots and limit.
        data_root: folder of local parquet files; then nothing is asked of the network. None reads
            the hub.
        precision: bf16 or fp32; with bf16 the model runs under autocast. Stored with the scores.
        batch_size: requests per forward pass.
        on_progress: called with (requests done, requests in all).

    Raises:
        DataError: the data is missing or broken.
        EvaluationError: the data cannot be made into prompts, or the answers are no numbers.
    """
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.scores import items_frame, task_scores, tokenizer_sha256
    from harness.evaluation.scoring import run_requests

    loaded = load_benchmark(task, data_root)
    identity = tokenizer_sha256(tokenizer)
    run = run_requests(
        loaded,
        model,
        tokenizer,
        tokenizer_sha256=identity,
        precision=precision,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    items = items_frame(loaded, run)
    scores = task_scores(loaded, run, tokenizer_sha256=identity, precision=precision)
    return TaskOutcome(scores=scores, items=items)
