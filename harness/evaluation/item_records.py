"""The items of any task of lm-eval, one row each, by what the task asks of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas

from harness.errors import EvaluationError
from harness.evaluation.generation import Generation
from harness.evaluation.kept_tasks import KeptTask
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.own_benchmarks import metric_key
from harness.evaluation.scores import item_keys

Sample = Mapping[str, Any]
INVALID = "[invalid]"
"""What lm-eval's regex filters give where they find nothing."""
TEXT_LENGTH = 2000
INTEGERS = ("prediction", "prediction_norm", "num_tokens")
"""Columns that are missing where another task of the group has them."""


def own_items_frame(
    loaded: LoadedBenchmark,
    samples: Mapping[str, Sequence[Sample]],
    generated: Mapping[tuple[str, int, int], Generation],
    cause_of_nan: Callable[[], str],
) -> pandas.DataFrame:
    """One row per item, in the order of the data set, task by task.

    Columns: `task`, `doc_id` and `question_id` as in every benchmark; one column per metric that is
    a number of each item, named as in the scores (`exact_match,strict-match`); and by output type:

    multiple_choice: `choices_loglikelihoods` (nats), `choice_lengths` (characters), `prediction`
    (of acc), `prediction_norm` (of acc_norm), `gold` (a number, or a list of them; missing where
    only the task's own code knows it).
    loglikelihood: `loglikelihood` (nats) and `is_greedy`.
    loglikelihood_rolling: `loglikelihood`, and the `num_words` and `num_bytes` it is divided by.
    generate_until: `response` (up to the first stop string), `num_tokens`, `ended` (by itself, not
    at the largest number of tokens), `filtered` (by filter, what was compared), and `responses`
    where each item has several.

    And what was asked, as lm-eval's templates put it, at most TEXT_LENGTH characters of each text:
    `question`, `options` (of multiple choice) and `target` (the right answer, of the others).

    Raises:
        EvaluationError: log-likelihoods are not numbers, or a gold answer is none of the choices.
    """
    rows = []
    for name, task in loaded.tasks.items():
        by_doc: dict[int, list[Sample]] = {}
        for sample in samples[name]:
            by_doc.setdefault(int(sample["doc_id"]), []).append(sample)
        for doc_id, of_doc in by_doc.items():
            first = of_doc[0]
            row = item_keys(loaded, name, first)
            row |= _ANSWERS[str(task.OUTPUT_TYPE)](task, of_doc, generated)
            rows.append(row | _metrics(of_doc) | _texts(task, first["doc"]))
            values = row.get("choices_loglikelihoods", [row.get("loglikelihood", 0.0)])
            if any(map(math.isnan, values)):
                raise EvaluationError(
                    f"{name}: the log-likelihood of item {doc_id} is not a number: {cause_of_nan()}"
                )
    frame = pandas.DataFrame(rows)
    for column in INTEGERS:
        if column in frame:
            frame[column] = frame[column].astype("Int64")
    return frame


def asked(task: Any, doc: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """The question, options and right answer of a document, as lm-eval's task object puts them."""
    question, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        options = list(map(str, task.doc_to_choice(doc)))
        # In winogrande the options are beginnings, and what follows them is the target.
        return f"… {target}" if isinstance(question, int) else str(question), options, ""
    answers = " / ".join(map(str, target if isinstance(target, list) else [target]))
    # Of a text whose likelihood is asked there is no question.
    return (str(question), [], answers) if question else (answers, [], "")


def _texts(task: KeptTask, doc: Mapping[str, Any]) -> dict[str, Any]:
    try:
        question, options, target = asked(task, doc)
    except Exception:  # a task's own code, which its scores do not need
        return {}
    options = [option[:TEXT_LENGTH] for option in options]
    return {"question": question[:TEXT_LENGTH], "options": options, "target": target[:TEXT_LENGTH]}


def empty_filters(loaded: LoadedBenchmark, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A notice for each filter that found nothing in any response of a task."""
    found = []
    for name in loaded.tasks:
        by_filter: dict[str, list[bool]] = {}
        for sample in samples[name]:
            kept = sample["filtered_resps"][0]
            by_filter.setdefault(sample["filter"], []).append(kept == INVALID)
        of_it = f" of {name}" if len(loaded.tasks) > 1 else ""
        found += [
            f"the filter '{key}' finds no answer in any of {len(none)} responses{of_it}"
            for key, none in by_filter.items()
            if all(none)
        ]
    return found


def _metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """The metrics of an item under each filter; those that are no number of an item left out."""
    return {
        metric_key(metric, str(sample["filter"])): float(value)
        for sample in samples
        for metric in sample["metrics"]
        if isinstance(value := sample[metric], Real | np.number | np.bool_)
    }


def _choices(task: KeptTask, samples: Sequence[Sample], _generated: object) -> dict[str, Any]:
    sample = samples[0]
    choices = task.doc_to_choice(sample["doc"])
    # Behind the choices' own, acc_mutual_info asks for each without its question.
    values = [float(value) for value, _ in sample["filtered_resps"]][: len(choices)]
    lengths = [len(choice) for choice in choices]
    by_length = [v / n if n else -math.inf for v, n in zip(values, lengths, strict=True)]
    return {
        "choices_loglikelihoods": values,
        "choice_lengths": lengths,
        "prediction": int(np.argmax(values)),
        "prediction_norm": int(np.argmax(by_length)) if "acc_norm" in sample["metrics"] else None,
        "gold": _gold(task, sample, choices),
    }


def _gold(task: KeptTask, sample: Sample, choices: Sequence[str]) -> int | list[int] | None:
    """The number of the right choice, as lm-eval's process_results finds it."""
    gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else gold
    several = gold if isinstance(gold, list) else [gold]
    if several and all(isinstance(one, Integral) and one in range(len(choices)) for one in several):
        numbers = [int(one) for one in several]  # of numpy too, as a task's code may give them
        return numbers if isinstance(gold, list) else numbers[0]
    if task.config.process_results is not None:
        return None
    raise EvaluationError(
        f"{task.task_name}: item {sample['doc_id']} has the gold answer {gold!r}, which is none of "
        f"its {len(choices)} choices; the data is broken"
    )


def _one_loglikelihood(
    _task: KeptTask, samples: Sequence[Sample], _generated: object
) -> dict[str, Any]:
    value, is_greedy = samples[0]["filtered_resps"][0]
    return {"loglikelihood": float(value), "is_greedy": bool(is_greedy)}


def _rolling(task: KeptTask, samples: Sequence[Sample], _generated: object) -> dict[str, Any]:
    (sample, *_), counts = samples, {}
    (value,), text = sample["filtered_resps"], sample["target"]
    # A task's own code may count another text than it asks for, as wikitext's, which is cleaned.
    for name, metric in (("num_words", "word_perplexity"), ("num_bytes", "bits_per_byte")):
        if isinstance(pair := sample.get(metric), tuple | list):
            counts[name] = int(pair[1])
    return {
        "loglikelihood": float(value),
        "num_words": task.count_words(text),
        "num_bytes": task.count_bytes(text),
        **counts,
    }


def _response(
    task: KeptTask,
    samples: Sequence[Sample],
    generated: Mapping[tuple[str, int, int], Generation],
) -> dict[str, Any]:
    texts: list[str] = samples[0]["resps"][0]
    first = generated[task.task_name, int(samples[0]["doc_id"]), 0]
    several = {"responses": texts} if len(texts) > 1 else {}
    filtered = {str(one["filter"]): str(one["filtered_resps"][0]) for one in samples}
    return {
        "response": texts[0],
        "num_tokens": first.num_tokens,
        "ended": first.ended,
        "filtered": filtered,
        **several,
    }


_ANSWERS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "multiple_choice": _choices,
    "loglikelihood": _one_loglikelihood,
    "loglikelihood_rolling": _rolling,
    "generate_until": _response,
}
