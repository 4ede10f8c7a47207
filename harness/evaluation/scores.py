"""Turns lm-eval's results into the records and per-item rows that are stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas
from transformers import PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.scoring import Run
from harness.evaluation.tasks import lm_eval_version
from harness.records.results import TaskScore


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the identity of a fast tokenizer: of all that decides its token ids.

    Truncation and padding are left out: they are what the last call set, not the tokenizer's own.
    """
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    text = backend.to_str()
    if truncation:
        backend.enable_truncation(**truncation)
    if padding:
        backend.enable_padding(**padding)
    return hashlib.sha256(text.encode()).hexdigest()


def prompts_sha256(loaded: LoadedBenchmark) -> str:
    """Returns the identity of a benchmark's prompts: of the texts of its requests, in order."""
    digest = hashlib.sha256()
    for name, task in loaded.tasks.items():
        for request in task.instances:
            texts = [part for part in request.args if isinstance(part, str)]
            digest.update(json.dumps([name, *texts]).encode())
    return digest.hexdigest()


def task_scores(
    loaded: LoadedBenchmark,
    lm_eval_results: Mapping[str, Any],
    *,
    key: str,
    tokenizer_sha256: str,
    precision: str,
    notes: Callable[[list[str]], list[str]],
    bos: str | None,
    token_budget: int | None = None,
    fallback: str | None = None,
    scored_with: tuple[str, ...] = (),
    pathologies: Callable[[list[str]], dict[str, int]] | None = None,
) -> tuple[TaskScore, ...]:
    """Returns the benchmark's scores, then those of its subjects where it is a group.

    Args:
        loaded: the benchmark.
        lm_eval_results: what lm-eval returned.
        key: of the request.
        tokenizer_sha256: identity of the tokenizer.
        precision: bf16 or fp32.
        notes: how the scores of some of its tasks deviate from the definition.
        bos: what every text begins with.
        token_budget: tokens of a forward pass.
        fallback: why the requests were run one by one, if they were.
        scored_with: the other benchmarks of the run.
        pathologies: number of items of some of its tasks by what is odd about their response.
    """
    task, benchmark = loaded.task, loaded.task.benchmark
    leaf_metrics = [metric for metric in benchmark.metrics if metric != MACRO_METRIC]
    results, prompts = lm_eval_results["results"], prompts_sha256(loaded)
    known = [loaded.note, *(other.note for other in loaded.mismatches)]
    common = [note for note in known if note]

    def score(
        name: str, metric: str, value: float, stderr: float | None, *, members: list[str]
    ) -> TaskScore:
        lm_eval_name = benchmark.lm_eval_tasks if name == benchmark.name else name
        return TaskScore(
            key=key,
            protocol=benchmark.protocol,
            benchmark=benchmark.name,
            task=name,
            metric=metric,
            value=value,
            stderr=stderr,
            n=sum(lm_eval_results["n-samples"][member]["effective"] for member in members),
            shots=task.num_shots,
            limit=task.limit,
            task_version=str(lm_eval_results["versions"][lm_eval_name]),
            lm_eval_version=lm_eval_version(),
            data_source=loaded.data_source,
            data_sha256=loaded.data_sha256,
            tokenizer_sha256=tokenizer_sha256,
            precision=precision,
            note="; ".join([*common, *notes(members)]) or None,
            temperature=None if task.decoding is None else task.decoding.temperature,
            response_flags={} if pathologies is None else pathologies(members),
            prompts_sha256=prompts,
            token_budget=token_budget,
            fallback=fallback,
            scored_with=scored_with,
            bos=bos,
            content_sha256=loaded.content_sha256,
        )

    members = list(loaded.tasks)
    top = results[benchmark.lm_eval_tasks]
    scores = [
        score(benchmark.name, metric, *_value(top, metric), members=members)
        for metric in leaf_metrics
    ]
    if MACRO_METRIC in benchmark.metrics:
        macro = _macro([_value(results[member], "acc") for member in members])
        scores.append(score(benchmark.name, MACRO_METRIC, *macro, members=members))
    if loaded.groups:
        scores += [
            score(member, metric, *_value(results[member], metric), members=[member])
            for member in members
            for metric in leaf_metrics
        ]
    return tuple(scores)


def _value(result: dict[str, Any], metric: str) -> tuple[float, float | None]:
    """Returns lm-eval's value and standard error; None where it says `N/A`."""
    stderr = result[f"{metric}_stderr,none"]
    known = not isinstance(stderr, str) and stderr is not None and math.isfinite(stderr)
    return float(result[f"{metric},none"]), float(stderr) if known else None


def _macro(values: list[tuple[float, float | None]]) -> tuple[float, float | None]:
    """Returns the mean over subjects and its standard error, sqrt(sum of squares) / count."""
    count = len(values)
    mean = sum(value for value, _ in values) / count
    errors = [stderr for _, stderr in values if stderr is not None]
    if len(errors) < count:
        return mean, None
    return mean, math.sqrt(sum(stderr**2 for stderr in errors)) / count


def scoring_notes(loaded: LoadedBenchmark, run: Run, members: list[str]) -> list[str]:
    """Returns how scores of log-likelihoods deviate from what lm-eval would give."""
    room = f"the model's {run.max_length} positions"
    notes = truncation_notes(loaded, run.truncated, room, members)
    if run.batching.fallback is not None:
        notes.append(f"scored request by request: {run.batching.fallback}")
    if run.batching.sufficed < run.batching.token_budget:
        notes.append(
            f"memory ran out with {run.batching.token_budget} tokens at once, and sufficed with "
            f"{run.batching.sufficed}"
        )
    return notes


def truncation_notes(
    loaded: LoadedBenchmark, truncated: Mapping[str, int], room: str, members: list[str]
) -> list[str]:
    """Returns how many requests lost their beginning; nothing where none did.

    Args:
        loaded: the benchmark.
        truncated: number of such requests, by task.
        room: what they are longer than.
        members: the tasks that count.
    """
    cut = sum(truncated[member] for member in members)
    if not cut:
        return []
    total = sum(len(loaded.tasks[member].instances) for member in members)
    return [f"{cut} of {total} requests are longer than {room} and lost their beginning"]


def items_frame(loaded: LoadedBenchmark, run: Run) -> pandas.DataFrame:
    """Returns one row per item, in the order of the data set, task by task.

    Columns: `task` (lm-eval's name), `doc_id` (its number in the task), `question_id` (the data
    set's own id, else a hash of the content), `choices_loglikelihoods` (nats, summed over the
    answer's tokens), `choice_lengths` (characters, what acc_norm divides by), `prediction` (of
    acc), `prediction_norm` (of acc_norm, missing where there is none), `gold` (number of the right
    choice; a list of them where several may be true), and one column per metric.

    Raises:
        EvaluationError: log-likelihoods are not numbers, or a gold answer is none of the choices.
    """
    rows = [
        _item(loaded, name, sample)
        for name in loaded.tasks
        for sample in run.results["samples"][name]
    ]
    _check_numbers(loaded, rows)
    frame = pandas.DataFrame(rows)
    frame["prediction_norm"] = frame["prediction_norm"].astype("Int64")
    return frame


def _item(loaded: LoadedBenchmark, name: str, sample: dict[str, Any]) -> dict[str, Any]:
    benchmark = loaded.task.benchmark
    delimiter = loaded.tasks[name].config.target_delimiter
    log_likelihoods = [float(value) for value, _ in sample["filtered_resps"]]
    lengths = [len(answer) - len(delimiter) for _, answer in sample["arguments"]]
    metrics = {metric: float(sample[metric]) for metric in sample["metrics"]}
    by_length = [
        value / length if length else -math.inf
        for value, length in zip(log_likelihoods, lengths, strict=True)
    ]
    return {
        "task": name,
        "doc_id": int(sample["doc_id"]),
        "question_id": question_id(loaded, sample["doc"]),
        "choices_loglikelihoods": log_likelihoods,
        "choice_lengths": lengths,
        "prediction": int(np.argmax(log_likelihoods)),
        "prediction_norm": int(np.argmax(by_length)) if "acc_norm" in metrics else None,
        "gold": _gold(benchmark.true_labels, name, sample, len(lengths)),
        **metrics,
    }


def question_id(loaded: LoadedBenchmark, doc: Mapping[str, Any]) -> str:
    """Returns the data set's own name of an item, else a hash of its content."""
    benchmark = loaded.task.benchmark
    if benchmark.id_column and doc.get(benchmark.id_column):
        return str(doc[benchmark.id_column])
    content = {column: doc[column] for column in benchmark.columns}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def _check_numbers(loaded: LoadedBenchmark, rows: list[dict[str, Any]]) -> None:
    answers = [value for row in rows for value in row["choices_loglikelihoods"]]
    broken = sum(math.isnan(value) for value in answers)
    if broken:
        raise EvaluationError(
            f"{loaded.task.name}: {broken} of {len(answers)} log-likelihoods are not a number; the "
            "model's weights or activations have overflowed: train it with a lower learning rate"
        )
    for row in rows:
        for metric in loaded.task.benchmark.metrics:
            if metric in row and not math.isfinite(row[metric]):
                raise EvaluationError(
                    f"{row['task']}: item {row['doc_id']} has no {metric}: every answer's "
                    "probability underflows to 0 (log-likelihoods below -745)"
                )
