"""Items of the data sets as the paper's prompts, and their results: what the task files call.

The prompts are those of `data/prompts.yaml`, verbatim.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness.evaluation.paper.matching import RESPONSE_FLAGS, judge

if TYPE_CHECKING:
    from datasets import Dataset

Doc = Mapping[str, Any]

SHUFFLE_SEED = 0
"""Seed of the order of options in paper_truthfulqa_shuffled."""


@dataclass(frozen=True)
class Question:
    """A multiple-choice question of any of the data sets."""

    options: tuple[str, ...]
    gold: int


def question_of(doc: Doc) -> Question:
    """Returns the options and the gold of an item of ARC, TruthfulQA or MMLU, by its columns."""
    if "answerKey" in doc:
        choices = doc["choices"]
        return Question(tuple(choices["text"]), choices["label"].index(doc["answerKey"]))
    if "mc1_targets" in doc:
        targets = doc["mc1_targets"]
        return Question(tuple(targets["choices"]), targets["labels"].index(1))
    return Question(tuple(doc["choices"]), int(doc["answer"]))


def arc_prompt(doc: Doc) -> str:
    """Returns the prompt of an item of ARC."""
    return _prompt("arc", doc)


def truthfulqa_prompt(doc: Doc) -> str:
    """Returns the prompt of an item of TruthfulQA."""
    return _prompt("truthfulqa", doc)


def mmlu_prompt(doc: Doc) -> str:
    """Returns the prompt of an item of MMLU; the subject's raw name stands in it."""
    return _prompt("mmlu", doc, subject=doc["subject"])


def plain_prompt(doc: Doc) -> str:
    """Returns a question alone in the template of training, without its options."""
    return fill(prompt_templates()["training"]["without_input"], instruction=doc["question"])


def target(doc: Doc) -> str:
    """Returns the right option's text."""
    question = question_of(doc)
    return question.options[question.gold]


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Returns whether the response is right, and its flags, each 0 or 1."""
    question = question_of(doc)
    verdict = judge(results[0], question.options, question.gold)
    return {"acc": float(verdict.right)} | {
        name: float(getattr(verdict, name)) for name in RESPONSE_FLAGS
    }


def shuffle_options(docs: Dataset) -> Dataset:
    """Returns TruthfulQA's items with their mc1 options in random order, one per question."""
    return docs.map(_shuffled, load_from_cache_file=False)


def _shuffled(doc: Doc) -> dict[str, Any]:
    targets = doc["mc1_targets"]
    order = list(range(len(targets["choices"])))
    random.Random(f"{SHUFFLE_SEED}/{doc['question']}").shuffle(order)
    return {
        **doc,
        "mc1_targets": {name: [targets[name][at] for at in order] for name in targets},
    }


def _prompt(name: str, doc: Doc, **values: str) -> str:
    options = "\n".join(f"- {option}" for option in question_of(doc).options)
    instruction = fill(
        prompt_templates()["instruction"][name], question=doc["question"], options=options
    )
    return fill(prompt_templates()["multiple_choice"][name], instruction=instruction, **values)


def fill(template: str, **values: str) -> str:
    """Returns a template with its fields filled; braces in values are only braces."""
    return re.sub(r"\{(\w+)\}", lambda field: values[field[1]], template)


@functools.cache
def prompt_templates() -> Mapping[str, Any]:
    """Returns what `data/prompts.yaml` holds."""
    import yaml

    text = resources.files("harness.data").joinpath("prompts.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
