"""Runs log-likelihood benchmarks: lm-eval with the model of `scorer`; tabulates the items."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.item_records import empty_filters, own_items_frame
from harness.evaluation.lm_eval_session import lm_eval_session, run_requests
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.pictures import EncodePictures, picture_notes
from harness.evaluation.scorer import EncodingCache, Scorer
from harness.evaluation.scores import (
    TaskOutcome,
    item_facts,
    item_keys,
    task_scores,
    tokenizer_sha256,
)
from harness.evaluation.silent_adapter import NOTE as SILENT
from harness.evaluation.silent_adapter import silent_benchmarks
from harness.evaluation.tasks import request_key
from harness.models.numbers import overflow_cause
from harness.models.text_ends import bos_warning, check_open, describe_bos

_ENCODINGS: dict[str, EncodingCache] = {}
"""By tokenizer: encodings are kept for the next model."""


def score_benchmarks(
    loaded: Sequence[LoadedBenchmark],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    precision: str,
    token_budget: int,
    on_progress: Callable[[int, int], None] | None = None,
    encode_pictures: EncodePictures | None = None,
) -> list[TaskOutcome]:
    """Scores the requests of benchmarks together; what several ask for is computed once.

    See `harness.evaluation.evaluate_together`.

    Raises:
        EvaluationError: the prompts cannot be built, an answer is longer than the model takes, the
            memory is too small for one question, or the answers are no numbers.
        ModelError: the tokenizer closes every text.
    """
    check_open(tokenizer)
    with lm_eval_session(model, tokenizer):
        scorer = Scorer(
            model,
            tokenizer,
            precision=precision,
            token_budget=token_budget,
            encodings=_ENCODINGS.setdefault(tokenizer_sha256(tokenizer), EncodingCache()),
            on_progress=on_progress,
            temperature=loaded[0].task.temperature,
            encode_pictures=encode_pictures,
        )
        scorer.generation.draw = loaded[0].task.draw or 0
        results = run_requests(scorer, loaded)
        requests = {
            one.task.name: asked
            for one in loaded
            if (asked := [r for name in one.tasks for r in scorer.requests.get(name, ())])
        }
        silent = silent_benchmarks(model, scorer, requests, scorer.answers)
    warning = bos_warning(tokenizer, model.config)
    names = tuple(benchmark.task.name for benchmark in loaded)
    outcomes = []
    for benchmark in loaded:
        notices = [SILENT] if benchmark.task.name in silent else []
        cause = partial(overflow_cause, model, precision)
        items, notes = _items(benchmark, results["samples"], scorer, cause)
        notices += [*notes, *picture_notes(items, scorer.pictures)]
        scores = task_scores(
            benchmark,
            results,
            scorer,
            warnings=[*([warning] if warning else []), *notices],
            deviations=_deviations(benchmark, scorer),
            key=request_key(benchmark.task, token_budget),
            precision=precision,
            bos=describe_bos(tokenizer),
            token_budget=token_budget,
            scored_with=tuple(name for name in names if name != benchmark.task.name),
        )
        outcomes.append(TaskOutcome(scores, items, scorer.batching, tuple(notices)))
    return outcomes


def _items(
    loaded: LoadedBenchmark,
    samples: Mapping[str, Sequence[dict[str, Any]]],
    scorer: Scorer,
    cause_of_nan: Callable[[], str],
) -> tuple[pandas.DataFrame, list[str]]:
    """A benchmark's items, and what a reader of them must know."""
    if not loaded.task.benchmark.members:
        return items_frame(loaded, samples, cause_of_nan), []
    items = own_items_frame(loaded, samples, scorer.generation.responses, cause_of_nan)
    return items, empty_filters(loaded, samples)


def _deviations(loaded: LoadedBenchmark, scorer: Scorer) -> list[str]:
    """In what the generation of responses is not the benchmark's own."""
    asked, own = loaded.task.decoding, loaded.task.benchmark.decoding
    if asked is None or own is None:
        return []
    found = []
    if asked.temperature != own.temperature:
        found.append(f"generated at temperature {asked.temperature:g}, not {own.temperature:g}")
    if (short := scorer.generation.shortened) is not None:
        found.append(
            f"at most {short[0]} new tokens, not {short[1]}: the model has {scorer.max_length} "
            "positions"
        )
    return found


def items_frame(
    loaded: LoadedBenchmark,
    samples: Mapping[str, Sequence[dict[str, Any]]],
    cause_of_nan: Callable[[], str],
) -> pandas.DataFrame:
    """One row per item, in the order of the data set, task by task.

    Columns: `task` (lm-eval's name), `doc_id` (its number in the task), `question_id` (the data
    set's own id, else a hash of the content), the benchmark's `item_columns`,
    `choices_loglikelihoods` (nats, summed over the answer's tokens), `choice_lengths` (characters,
    what acc_norm divides by), `prediction` (of acc), `prediction_norm` (of acc_norm, missing where
    there is none), `gold` (number of the right choice; a list of them where several may be true),
    and one column per metric.

    Args:
        cause_of_nan: why log-likelihoods are not numbers, and what to do.

    Raises:
        EvaluationError: log-likelihoods are not numbers, or a gold answer is none of the choices.
    """
    rows = [_item(loaded, name, sample) for name in loaded.tasks for sample in samples[name]]
    _check_numbers(loaded, rows, cause_of_nan)
    frame = pandas.DataFrame(rows)
    frame["prediction_norm"] = frame["prediction_norm"].astype("Int64")
    return frame


def _item(loaded: LoadedBenchmark, name: str, sample: dict[str, Any]) -> dict[str, Any]:
    delimiter = loaded.tasks[name].config.target_delimiter
    log_likelihoods = [float(value) for value, _ in sample["filtered_resps"]]
    lengths = [len(texts[1]) - len(delimiter) for texts in sample["arguments"]]
    metrics = {metric: float(sample[metric]) for metric in sample["metrics"]}
    by_length = [
        value / length if length else -math.inf
        for value, length in zip(log_likelihoods, lengths, strict=True)
    ]
    return {
        **item_keys(loaded, name, sample),
        **item_facts(loaded, name, sample),
        "choices_loglikelihoods": log_likelihoods,
        "choice_lengths": lengths,
        "prediction": int(np.argmax(log_likelihoods)),
        "prediction_norm": int(np.argmax(by_length)) if "acc_norm" in metrics else None,
        "gold": _gold(loaded.task.benchmark.true_labels, name, sample, len(lengths)),
        **metrics,
    }


def _gold(
    true_labels: str | None, name: str, sample: dict[str, Any], num_choices: int
) -> int | list[int]:
    if true_labels is not None:
        labels = sample["doc"][true_labels]["labels"]
        return [number for number, label in enumerate(labels) if label == 1]
    gold = sample["target"]
    if not isinstance(gold, int) or not 0 <= gold < num_choices:
        raise EvaluationError(
            f"{name}: item {sample['doc_id']} has the gold answer {gold!r}, which is none of its "
            f"{num_choices} choices; the data is broken"
        )
    return gold


def _check_numbers(
    loaded: LoadedBenchmark, rows: list[dict[str, Any]], cause_of_nan: Callable[[], str]
) -> None:
    answers = [value for row in rows for value in row["choices_loglikelihoods"]]
    broken = sum(math.isnan(value) for value in answers)
    if broken:
        raise EvaluationError(
            f"{loaded.task.name}: {broken} of {len(answers)} log-likelihoods are not a number: "
            f"{cause_of_nan()}"
        )
    for row in rows:
        for metric in loaded.task.benchmark.metrics:
            if metric in row and not math.isfinite(row[metric]):
                raise EvaluationError(
                    f"{row['task']}: item {row['doc_id']} has no {metric}: every answer's "
                    "probability underflows to 0 (log-likelihoods below -745)"
                )
