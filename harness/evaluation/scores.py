"""Makes the stored records of what lm-eval measured with any model class (`scorer` is one)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pandas
from lm_eval.api.group import Group
from transformers import PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.evaluation.items import question_id
from harness.evaluation.lm_eval_session import Batching, InMemoryHFLM
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.own_benchmarks import metric_key
from harness.evaluation.tasks import lm_eval_version
from harness.records.scores import LARGEST_SHARE, TaskScore

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
    """The identity of a benchmark's prompts: of its requests' texts and pictures, in order."""
    digest = hashlib.sha256()
    for name, task in loaded.tasks.items():
        for request in task.instances:
            texts = [part for part in request.args if isinstance(part, str)]
            shown = task.pictures[int(request.doc_id)] if task.shows_pictures else None
            texts += [] if shown is None else [shown]
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
    task, known = loaded.task, loaded.task.benchmark
    results, members = lm_eval_results["results"], list(loaded.tasks)
    metrics = metrics_of(known, results[task.name]) if known.members else known.metrics
    shared |= _of_evaluation(loaded, lm)

    def score(name: str, metric: str, members: list[str]) -> TaskScore:
        value, stderr = _measured(results, name, metric, members)
        unit = known.unit(metric)
        samples = lm_eval_results.get("samples", {})
        measured = [value, *(one for name in members for one in _of_items(samples[name], metric))]
        if unit is None and not all(0 <= one <= LARGEST_SHARE for one in measured):
            unit = metric.partition(",")[0]  # named as a share, and counted otherwise
        return TaskScore(
            task=name,
            metric=metric,
            value=value,
            stderr=stderr,
            unit=unit,
            higher_is_better=_direction(known, lm_eval_results, name, metric),
            n=sum(lm_eval_results["n-samples"][member]["effective"] for member in members),
            task_version=str(lm_eval_results["versions"].get(name, "N/A")),
            note=_note(loaded, lm, members, warnings, deviations),
            response_flags=response_flags(members),
            **shared,
        )

    whole = [score(task.name, metric, members) for metric in metrics]
    if not loaded.groups:
        return tuple(whole)
    parts = {name: [name] for name in members}
    if known.members:
        within = {one.name: [t.task_name for t in one.get_all_tasks()] for one in _parts(loaded)}
        parts = within | parts
    own = [metric for metric in metrics if metric != MACRO_METRIC]
    for name, tasks in parts.items():
        measured = metrics_of(known, results[name]) if known.members else own
        whole += [score(name, metric, tasks) for metric in measured]
    return tuple(whole)


def _of_evaluation(loaded: LoadedBenchmark, lm: InMemoryHFLM) -> dict[str, Any]:
    """The fields that all scores of an evaluation share."""
    task = loaded.task
    return {
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
        "form": task.form,
        "definition": task.benchmark.definition,
        "temperature": None if task.decoding is None else task.decoding.temperature,
        "fallback": lm.batching.fallback,
    }


def _measured(
    results: Mapping[str, Any], name: str, metric: str, members: Sequence[str]
) -> tuple[float, float | None]:
    """A metric's value and standard error.

    Raises:
        EvaluationError: it is no number.
    """
    if metric == MACRO_METRIC:
        value, stderr = _macro([_value(results[member], "acc") for member in members])
    else:
        value, stderr = _value(results[name], metric)
    if not math.isfinite(value):
        raise EvaluationError(
            f"{name}: its {metric} is no number ({value}) on these responses; look at its items"
        )
    return value, stderr


def _parts(loaded: LoadedBenchmark) -> list[Group]:
    """The groups within a group that have a mean of their own."""
    groups = loaded.groups.items()
    return [one for name, one in groups if name != loaded.task.name and one.has_aggregation]


def metrics_of(benchmark: Benchmark, result: Mapping[str, Any]) -> list[str]:
    """The metrics that lm-eval's result of a task or group has: those of its YAML first.

    Raises:
        EvaluationError: it has none of those, or one is no number.
    """
    found = []
    for key in result:
        name, _, filter_name = key.partition(",")
        if filter_name and not name.endswith("_stderr") and name != "alias":
            found.append(metric_key(name, filter_name))
    listed = [metric for metric in benchmark.metrics if metric in found]
    if not listed and result.get("alias") == benchmark.name:
        raise EvaluationError(
            f"{benchmark.name}: lm-eval measured {', '.join(found) or 'nothing'}, and its YAML "
            f"names {', '.join(benchmark.metrics)}; correct its metric_list or filters"
        )
    return [*listed, *(metric for metric in found if metric not in listed)]


def _direction(benchmark: Benchmark, results: Mapping[str, Any], name: str, metric: str) -> bool:
    if metric in benchmark.kinds:
        return benchmark.direction(metric)
    told = results.get("higher_is_better", {}).get(name, {}).get(metric.partition(",")[0])
    return told is not False


def _value(result: dict[str, Any], metric: str) -> tuple[float, float | None]:
    """lm-eval's value and standard error; None where it says `N/A`. NaN of what is no number."""
    name, _, filter_name = metric.partition(",")
    filter_name = filter_name or "none"
    stderr, value = result.get(f"{name}_stderr,{filter_name}"), result[f"{name},{filter_name}"]
    known = not isinstance(stderr, str) and stderr is not None and math.isfinite(stderr)
    try:
        return float(value), float(stderr or 0.0) if known else None
    except (TypeError, ValueError):
        return math.nan, None


def _of_items(samples: Sequence[Mapping[str, Any]], metric: str) -> Iterator[float]:
    """Yields the items' own values of a metric, where they are numbers."""
    name, _, filter_name = metric.partition(",")
    for sample in samples:
        value = sample.get(name) if sample["filter"] == (filter_name or "none") else None
        if isinstance(value, int | float):
            yield value


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
    own id, else a hash of its content. Of a task with pictures also `picture`: the SHA-256 of the
    item's, or None.
    """
    task, doc_id = loaded.tasks[name], int(sample["doc_id"])
    picture = task.pictures[doc_id] if task.shows_pictures else None
    own = question_id(loaded.task.benchmark, sample["doc"], picture)
    keys = {"task": name, "doc_id": doc_id, "question_id": own}
    return keys | ({"picture": picture} if task.shows_pictures else {})


def item_facts(loaded: LoadedBenchmark, name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """What the data set says of an item, in the benchmark's `item_columns`, and what its
    `item_function` makes of that.
    """
    benchmark, doc, task = loaded.task.benchmark, sample["doc"], loaded.tasks[name]
    facts = {column: doc[column] for column in benchmark.item_columns}
    if benchmark.item_function is None:
        return facts
    module, _, function = benchmark.item_function.partition(":")
    picture = task.pictures[int(sample["doc_id"])] if task.shows_pictures else None
    return facts | getattr(import_module(module), function)(doc, picture)
