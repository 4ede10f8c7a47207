"""Makes the stored records of what lm-eval measured with any model class (`scorer` is one)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas
from transformers import PreTrainedTokenizerBase

from harness.evaluation.benchmarks import MACRO_METRIC
from harness.evaluation.items import question_id
from harness.evaluation.lm_eval_session import Batching, InMemoryHFLM
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.tasks import lm_eval_version
from harness.records.results import TaskScore

ITEMS_DIGITS = 12
"""Digits of the items' SHA-256 in the name of an evaluation."""


@dataclass(frozen=True)
class TaskOutcome:
    """Scores of one benchmark, and what they were made of."""

    scores: tuple[TaskScore, ...]
    """Those of the benchmark first, metric by metric; then of each subject where it is a group."""
    items: pandas.DataFrame
    """One row per item; the protocol's `items_frame` names the columns."""
    batching: Batching
    """How the requests were put together."""
    warnings: tuple[str, ...] = ()
    """What the reader of the scores must know; it stands in their notes too."""


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """The identity of a fast tokenizer: of all that decides its token ids.

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
    """The identity of a benchmark's prompts: of the texts of its requests, in order."""
    digest = hashlib.sha256()
    for name, task in loaded.tasks.items():
        for request in task.instances:
            texts = [part for part in request.args if isinstance(part, str)]
            digest.update(json.dumps([name, *texts]).encode())
    return digest.hexdigest()


def task_scores(
    loaded: LoadedBenchmark,
    lm_eval_results: Mapping[str, Any],
    lm: InMemoryHFLM,
    *,
    warnings: Sequence[str] = (),
    deviations: Sequence[str] = (),
    response_flags: Callable[[list[str]], dict[str, int]] = lambda _members: {},
    **shared: Any,
) -> tuple[TaskScore, ...]:
    """The benchmark's scores, then those of its subjects where it is a group.

    Args:
        loaded: the benchmark.
        lm_eval_results: what lm-eval returned.
        lm: what ran the requests.
        warnings: what else the notes begin with.
        deviations: from the benchmark's definition; stand in the notes too.
        response_flags: number of items of some of its tasks by the flag of their response.
        shared: further fields of every score.
    """
    task, metrics = loaded.task, loaded.task.benchmark.metrics
    results, members = lm_eval_results["results"], list(loaded.tasks)
    shared |= {
        "protocol": task.benchmark.protocol.name,
        "benchmark": task.name,
        "shots": task.num_shots,
        "limit": task.limit,
        "lm_eval_version": lm_eval_version(),
        "data_source": loaded.data_source,
        "data_sha256": loaded.data_sha256,
        "content_sha256": loaded.content_sha256,
        "items": loaded.content_sha256[:ITEMS_DIGITS],
        "prompts_sha256": prompts_sha256(loaded),
        "tokenizer_sha256": tokenizer_sha256(lm.tokenizer),
        "temperature": None if task.decoding is None else task.decoding.temperature,
        "fallback": lm.batching.fallback,
    }

    def score(name: str, metric: str, members: list[str]) -> TaskScore:
        if metric == MACRO_METRIC:
            value, stderr = _macro([_value(results[member], "acc") for member in members])
        else:
            value, stderr = _value(results[name], metric)
        return TaskScore(
            task=name,
            metric=metric,
            value=value,
            stderr=stderr,
            n=sum(lm_eval_results["n-samples"][member]["effective"] for member in members),
            task_version=str(lm_eval_results["versions"][name]),
            note=_note(loaded, lm, members, warnings, deviations),
            response_flags=response_flags(members),
            **shared,
        )

    names = members if loaded.groups else []
    own = [metric for metric in metrics if metric != MACRO_METRIC]
    whole = (score(task.name, metric, members) for metric in metrics)
    return (*whole, *(score(one, metric, [one]) for one in names for metric in own))


def _value(result: dict[str, Any], metric: str) -> tuple[float, float | None]:
    """lm-eval's value and standard error; None where it says `N/A`."""
    stderr = result[f"{metric}_stderr,none"]
    known = not isinstance(stderr, str) and stderr is not None and math.isfinite(stderr)
    return float(result[f"{metric},none"]), float(stderr) if known else None


def _macro(values: list[tuple[float, float | None]]) -> tuple[float, float | None]:
    """The mean over subjects and its standard error, sqrt(sum of squares) / count."""
    count = len(values)
    mean = sum(value for value, _ in values) / count
    squares = [stderr**2 for _, stderr in values if stderr is not None]
    return mean, math.sqrt(sum(squares)) / count if len(squares) == count else None


def _note(
    loaded: LoadedBenchmark,
    lm: InMemoryHFLM,
    members: list[str],
    warnings: Sequence[str],
    deviations: Sequence[str],
) -> str | None:
    """What is to be known of a score of some of a benchmark's tasks: see `task_scores`."""
    notes = [loaded.note, *(mismatch.note for mismatch in loaded.mismatches), *warnings]
    if cut := sum(lm.truncated[member] for member in members):
        total = sum(len(loaded.tasks[member].instances) for member in members)
        notes.append(
            f"{cut} of {total} requests are longer than {lm.room} and lost their beginning"
        )
    notes += deviations
    batching = lm.batching
    if batching.fallback is not None:
        notes.append(f"{lm.fallback_note}: {batching.fallback}")
    if batching.effective < batching.setting:
        setting = f"{batching.setting} {lm.unit}"
        notes.append(f"memory ran out with {setting} at once, not with {batching.effective}")
    return "; ".join(filter(None, notes)) or None


def item_keys(loaded: LoadedBenchmark, name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """What names an item of an lm-eval task: `task`, `doc_id`, and as `question_id` the data set's
    own id, else a hash of its content.
    """
    own = question_id(loaded.task.benchmark, sample["doc"])
    return {"task": name, "doc_id": int(sample["doc_id"]), "question_id": own}
