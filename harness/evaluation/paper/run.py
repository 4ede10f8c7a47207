"""Runs one benchmark of the paper's protocol, and turns lm-eval's results into records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.evaluation.loading import LoadedBenchmark
from harness.evaluation.outcome import TaskOutcome
from harness.evaluation.paper.documents import question_of
from harness.evaluation.paper.matching import judge
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.scores import prompts_sha256, question_id, task_scores, truncation_notes
from harness.evaluation.scoring import kept_templates, left_as_it_was, quiet
from harness.evaluation.tasks import DEFAULT_NUM_ROWS, request_key


def evaluate_generated(
    loaded: LoadedBenchmark,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokenizer_sha256: str,
    precision: str,
    num_rows: int = DEFAULT_NUM_ROWS,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskOutcome:
    """Returns the scores of a model on one benchmark, with its items.

    Args:
        loaded: the benchmark.
        model: a causal language model, on its device; left as it was.
        tokenizer: its tokenizer, likewise.
        tokenizer_sha256: its identity.
        precision: bf16 or fp32.
        num_rows: responses side by side.
        on_progress: called with (responses done, responses in all).

    Raises:
        EvaluationError: the prompts cannot be built, the tokenizer has no EOS, the memory is too
            small for one response, or the model's logits are not numbers.
    """
    decoding = loaded.task.decoding
    assert decoding is not None
    with quiet(), kept_templates(), left_as_it_was(model, tokenizer):
        speaker = GeneratingModel(
            model,
            tokenizer,
            decoding=decoding,
            precision=precision,
            num_rows=num_rows,
            on_progress=on_progress,
        )
        loaded.build_requests()
        results = evaluate(
            lm=speaker,
            task_dict={"tasks": dict(loaded.tasks), "groups": dict(loaded.groups)},
            limit=loaded.task.limit,
            log_samples=True,
        )
    assert results is not None  # there is one rank
    items = items_frame(loaded, results, speaker)
    bos = tokenizer.bos_token_id
    scores = task_scores(
        loaded,
        results,
        key=request_key(loaded.task),
        tokenizer_sha256=tokenizer_sha256,
        precision=precision,
        notes=lambda members: _notes(loaded, speaker, members),
        # The protocol puts it there, whatever the tokenizer does.
        bos="none" if bos is None else f"token {bos}",
        fallback=speaker.pooling.fallback,
        pathologies=lambda members: _pathologies(loaded, items, members),
    )
    return TaskOutcome(scores, items, prompts_sha256(loaded), speaker.pooling)


def items_frame(
    loaded: LoadedBenchmark, results: Mapping[str, Any], speaker: GeneratingModel
) -> pandas.DataFrame:
    """Returns one row per item, in the order of the data set, task by task.

    Columns: `task` (lm-eval's name), `doc_id` (its number in the task), `question_id` (the data
    set's own id, else a hash of the content), `response` (the generated text), `num_tokens` of it,
    `ended` (by itself, not at the largest number of tokens), `prediction` (number of the option
    that it is taken for, missing where none), `gold`, `acc`, and one column per pathology.
    """
    rows = []
    for name in loaded.tasks:
        for sample in results["samples"][name]:
            text = sample["filtered_resps"][0]
            question = question_of(sample["doc"])
            response = speaker.responses[name, int(sample["doc_id"])]
            rows.append(
                {
                    "task": name,
                    "doc_id": int(sample["doc_id"]),
                    "question_id": question_id(loaded, sample["doc"]),
                    "response": text,
                    "num_tokens": len(response.tokens),
                    "ended": response.ended,
                    "prediction": judge(text, question.options, question.gold).prediction,
                    "gold": question.gold,
                    "acc": float(sample["acc"]),
                    **{one: bool(sample[one]) for one in loaded.task.benchmark.pathologies},
                }
            )
    frame = pandas.DataFrame(rows)
    frame["prediction"] = frame["prediction"].astype("Int64")
    return frame


def _pathologies(
    loaded: LoadedBenchmark, items: pandas.DataFrame, members: list[str]
) -> dict[str, int]:
    chosen = items[items["task"].isin(members)]
    return {name: int(chosen[name].sum()) for name in loaded.task.benchmark.pathologies}


def _notes(loaded: LoadedBenchmark, speaker: GeneratingModel, members: list[str]) -> list[str]:
    task, pooling = loaded.task, speaker.pooling
    assert task.decoding is not None
    assert task.benchmark.decoding is not None
    room = (
        f"the {speaker.longest_prompt} of the model's {speaker.max_length} positions that the "
        "response leaves"
    )
    notes = truncation_notes(loaded, speaker.truncated, room, members)
    if task.decoding.temperature != task.benchmark.decoding.temperature:
        notes.append(
            f"generated at temperature {task.decoding.temperature:g}, not "
            f"{task.benchmark.decoding.temperature:g}"
        )
    if pooling.max_new_tokens < task.decoding.max_new_tokens:
        notes.append(
            f"at most {pooling.max_new_tokens} new tokens, not {task.decoding.max_new_tokens}: the "
            f"model has {speaker.max_length} positions"
        )
    if pooling.fallback is not None:
        notes.append(f"generated without kept keys and values: {pooling.fallback}")
    if pooling.sufficed < pooling.num_rows:
        notes.append(
            f"memory ran out with {pooling.num_rows} responses at once, and sufficed with "
            f"{pooling.sufficed}"
        )
    return notes
