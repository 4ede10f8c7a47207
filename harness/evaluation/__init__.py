"""Scores a model on one benchmark; light to import, heavy to call.

`benchmarks` lists what there is, `tasks` what a grid may ask for, `data_identity` which version of
the data is meant, `canary` which base models' scores are known; `loading` builds lm-eval's task
objects, `scoring` runs their requests, and `scores` turns lm-eval's results into records. The
requests go through `scorer`: their `trie` is cut into rows, `batches` of rows are filled,
`trie_forward` runs the model on them, and `trie_scoring` adds up; `sharing` says with which models.
The folder `paper` is the paper's own protocol: generation, scored by string matching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.evaluation.outcome import TaskOutcome
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET, TaskSpec, request_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.evaluation.loading import LoadedBenchmark


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSpec,
    *,
    data_root: Path | None,
    precision: str,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskOutcome:
    """Returns the scores of a model on one benchmark, with its items: see `evaluate_together`."""
    (outcome,) = evaluate_together(
        model,
        tokenizer,
        [task],
        data_root=data_root,
        precision=precision,
        token_budget=token_budget,
        on_progress=on_progress,
    )
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
) -> list[TaskOutcome]:
    """Returns the scores of a model on benchmarks that have requests in common, with their items.

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

    Raises:
        DataError: the data is missing or broken.
        EvaluationError: the data cannot be made into prompts, or the answers are no numbers.
    """
    from harness.evaluation.bos import bos_warning, describe_bos
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.scores import (
        items_frame,
        prompts_sha256,
        scoring_notes,
        task_scores,
        tokenizer_sha256,
    )
    from harness.evaluation.scoring import run_requests

    loaded = [load_benchmark(task, data_root) for task in tasks]
    identity = tokenizer_sha256(tokenizer)
    if tasks[0].decoding is not None:
        from harness.evaluation.paper.run import evaluate_generated

        generated = [
            evaluate_generated(
                benchmark,
                model,
                tokenizer,
                tokenizer_sha256=identity,
                precision=precision,
                on_progress=on_progress,
            )
            for benchmark in loaded
        ]
        return [
            replace(outcome, warnings=_warnings(benchmark, data_root))
            for benchmark, outcome in zip(loaded, generated, strict=True)
        ]
    run = run_requests(
        loaded,
        model,
        tokenizer,
        tokenizer_sha256=identity,
        precision=precision,
        token_budget=token_budget,
        on_progress=on_progress,
    )
    warning = bos_warning(tokenizer, model.config)
    outcomes = []
    for benchmark in loaded:
        items = items_frame(benchmark, run)
        scores = task_scores(
            benchmark,
            run.results,
            key=request_key(benchmark.task, token_budget),
            tokenizer_sha256=identity,
            precision=precision,
            notes=lambda members, benchmark=benchmark: [  # type: ignore[misc]
                *([warning] if warning else []),
                *scoring_notes(benchmark, run, members),
            ],
            bos=describe_bos(tokenizer),
            token_budget=token_budget,
            fallback=run.batching.fallback,
            scored_with=tuple(task.name for task in tasks if task.name != benchmark.task.name),
        )
        prompts = prompts_sha256(benchmark)
        warnings = _warnings(benchmark, data_root)
        outcomes.append(TaskOutcome(scores, items, prompts, run.batching, warnings))
    return outcomes


def _warnings(loaded: LoadedBenchmark, data_root: Path | None) -> tuple[str, ...]:
    """Local data of another version are told before anything runs; the hub's are told here."""
    return tuple(map(str, loaded.mismatches)) if data_root is None else ()
