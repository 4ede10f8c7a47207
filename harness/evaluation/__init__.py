"""Scores a model on benchmarks; light to import, heavy to call.

Known without a model: `benchmarks` lists those with an entry of their own, `own_benchmarks` makes
any other of lm-eval's YAML (`task_index` finds it, `task_files` reads it, `task_tree` follows
groups), `metric_kinds` says what metrics count, `protocols` how each is measured, `tasks` what a
grid may ask for, `task_data` where its rows lie (`data_files` reads them), and `data_versions`
which version of the data is meant. With one, `evaluate_together` lets `loading` build lm-eval's
task objects (`kept_tasks`) over local files or the hub, and hands them to the protocol's scorer:
`scoring` for lm-eval's own (`item_records`, and `generation` of responses as HFLM generates them),
the folder `paper` for the paper's protocol, and for that of the folder `scienceqa`, which judges
responses by another rule. All run a model object of lm-eval's model class under lm-eval's evaluator
(`lm_eval_session`); `scores` turns its results into records.

Log-likelihoods are computed by `scorer`, lm-eval's model class, over the folder `prefix_trie`:
what requests begin with in common is computed once. `pictures` shows a model those of the requests
of tasks with `doc_to_image`. `trial` finds out which models that suits, and `memory` halves what
does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET, TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.evaluation.scores import TaskOutcome
    from harness.models.pictures import PictureFeatures
    from harness.readers.pictures import Picture


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: TaskSpec, **settings: Any
) -> TaskOutcome:
    """Scores of a model on one benchmark, with its items: see `evaluate_together`."""
    (outcome,) = evaluate_together(model, tokenizer, [task], **settings)
    return outcome


def evaluate_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[TaskSpec],
    *,
    data_root: Path | None,
    precision: str,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    on_progress: Callable[[int, int], None] | None = None,
    encode_pictures: Callable[[Sequence[Picture]], PictureFeatures] | None = None,
) -> list[TaskOutcome]:
    """Scores of a model on benchmarks that have requests in common, with their items.

    Log-likelihoods are those of `lm_eval.simple_evaluate` on the same model and items; what their
    requests share is computed once. Benchmarks of the paper's protocol are generated, one by one.
    The model and the tokenizer are left as they were.

    Args:
        model: a causal language model, on its device; with PEFT's adapters or without.
        tokenizer: its tokenizer; BOS is added or not as the tokenizer itself does it.
        tasks: benchmarks, shots and limit: one group of `tasks.scored_together`.
        data_root: folder of local parquet files; then nothing is asked of the network. None reads
            the hub.
        precision: bf16, fp16 or fp32; the first two run under autocast. Stored with the scores.
        token_budget: tokens of a forward pass, padding included; halved where memory runs out.
        on_progress: called with (requests done, requests in all).
        encode_pictures: gives features of distinct pictures; called once with those of all
            requests. Where it is None, or the model's adapter takes no pictures, the model is shown
            none, and the scores say so.

    Raises:
        DataError: the data is missing or broken.
        EvaluationError: the data cannot be made into prompts, or the answers are no numbers.
    """
    from harness.evaluation.loading import load_benchmark

    loaded = [load_benchmark(task, data_root) for task in tasks]
    module, _, function = tasks[0].benchmark.protocol.scorer.partition(":")
    outcomes: list[TaskOutcome] = getattr(import_module(module), function)(
        loaded,
        model,
        tokenizer,
        precision=precision,
        token_budget=token_budget,
        on_progress=on_progress,
        encode_pictures=encode_pictures,
    )
    if data_root is not None:  # local data of another version are told before anything runs
        return outcomes
    return [
        replace(outcome, warnings=(*map(str, benchmark.mismatches), *outcome.warnings))
        for benchmark, outcome in zip(loaded, outcomes, strict=True)
    ]
