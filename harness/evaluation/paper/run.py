"""Runs benchmarks whose responses a protocol judges, and turns lm-eval's results into records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import pandas
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.evaluation.lm_eval_session import lm_eval_session, run_requests
from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.paper.documents import question_of
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.pictures import EncodePictures, picture_notes
from harness.evaluation.protocols import Protocol
from harness.evaluation.scores import TaskOutcome, item_facts, item_keys, task_scores
from harness.evaluation.tasks import DEFAULT_NUM_ROWS, TaskSpec, request_key


def score_benchmarks(
    loaded: Sequence[LoadedBenchmark],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    precision: str,
    token_budget: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    encode_pictures: EncodePictures | None = None,
    num_rows: int = DEFAULT_NUM_ROWS,
) -> list[TaskOutcome]:
    """Generates responses to the items of benchmarks, and scores them, one benchmark by one.

    See `harness.evaluation.evaluate_together`; `token_budget` is not used, but `num_rows`,
    responses side by side.

    Raises:
        EvaluationError: the prompts cannot be built, the tokenizer has no EOS, the memory is too
            small for one response, or the model's logits are not numbers.
    """
    outcomes = []
    for benchmark in loaded:
        assert benchmark.task.decoding is not None
        with lm_eval_session(model, tokenizer):
            generating = GeneratingModel(
                model,
                tokenizer,
                decoding=benchmark.task.decoding,
                precision=precision,
                num_rows=num_rows,
                on_progress=on_progress,
                encode_pictures=encode_pictures,
            )
            results = run_requests(generating, [benchmark])
        items = items_frame(benchmark, results["samples"], generating)
        bos = tokenizer.bos_token_id
        notices = picture_notes(items, generating.pictures)
        scores = task_scores(
            benchmark,
            results,
            generating,
            warnings=notices,
            deviations=_deviations(benchmark.task, generating),
            response_flags=partial(_count_flags, items, benchmark.task.benchmark.protocol),
            key=request_key(benchmark.task),
            precision=precision,
            # The protocol puts it there, whatever the tokenizer does.
            bos="none" if bos is None else f"token {bos}",
        )
        outcomes.append(TaskOutcome(scores, items, generating.batching, tuple(notices)))
    return outcomes


def items_frame(
    loaded: LoadedBenchmark,
    samples: Mapping[str, Sequence[dict[str, Any]]],
    model: GeneratingModel,
) -> pandas.DataFrame:
    """One row per item, in the order of the data set, task by task.

    Columns: `task` (lm-eval's name), `doc_id` (its number in the task), `question_id` (the data
    set's own id, else a hash of the content), the benchmark's `item_columns`, `response` (the
    generated text), `num_tokens` of it, `ended` (by itself, not at the largest number of tokens),
    `prediction` (number of the option that it is taken for, missing where none), `gold`, `acc`, and
    one column per response flag.
    """
    protocol = loaded.task.benchmark.protocol
    assert protocol.judge is not None
    module, _, function = protocol.judge.partition(":")
    judge, rows = getattr(import_module(module), function), []
    for name in loaded.tasks:
        for sample in samples[name]:
            text = sample["filtered_resps"][0]
            question = question_of(sample["doc"])
            response = model.responses[name, int(sample["doc_id"])]
            rows.append(
                {
                    **item_keys(loaded, name, sample),
                    **item_facts(loaded, name, sample),
                    "response": text,
                    "num_tokens": len(response.tokens),
                    "ended": response.ended,
                    "prediction": judge(text, question.options, question.gold).prediction,
                    "gold": question.gold,
                    "acc": float(sample["acc"]),
                    **{flag: bool(sample[flag]) for flag in protocol.response_flags},
                }
            )
    frame = pandas.DataFrame(rows)
    frame["prediction"] = frame["prediction"].astype("Int64")
    return frame


def _count_flags(items: pandas.DataFrame, protocol: Protocol, members: list[str]) -> dict[str, int]:
    chosen = items[items["task"].isin(members)]
    return {flag: int(chosen[flag].sum()) for flag in protocol.response_flags}


def _deviations(task: TaskSpec, model: GeneratingModel) -> list[str]:
    asked, used, defined = task.decoding, model.decoding, task.benchmark.decoding
    assert asked is not None
    assert defined is not None
    found = []
    if asked.temperature != defined.temperature:
        found.append(f"generated at temperature {asked.temperature:g}, not {defined.temperature:g}")
    if used.max_new_tokens < asked.max_new_tokens:
        found.append(
            f"at most {used.max_new_tokens} new tokens, not {asked.max_new_tokens}: the model has "
            f"{model.max_length} positions"
        )
    return found
