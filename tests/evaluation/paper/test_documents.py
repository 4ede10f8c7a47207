"""Prompts are those of the published measurement, to the character."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.loading import load_benchmark
from harness.evaluation.paper import documents
from harness.evaluation.paper.matching import RESPONSE_FLAGS
from harness.evaluation.protocols import PAPER
from harness.evaluation.tasks import TaskSpec

ARC = {
    "question": "What {melts}?",
    "choices": {"text": ["Ice.", "{options}", "Iron"], "label": ["1", "2", "3"]},
    "answerKey": "3",
}
TRUTHFUL = {
    "question": "Who?",
    "mc1_targets": {"choices": ["Me", "You", "She", "He"], "labels": [1, 0, 0, 0]},
}
MMLU = {"question": " Why? ", "subject": "high_school_physics", "choices": ["a", "b", "c", "d"],
        "answer": 2}  # fmt: skip
HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the "
)


def test_the_prompts_file_is_the_original() -> None:
    content = (files("harness") / "data/prompts.yaml").read_bytes()
    digest = "a16d26346319b3b1e700a18716b8701278071d099cf3c076508bb04710ce1b1d"
    assert hashlib.sha256(content).hexdigest() == digest


def test_prompt_of_arc() -> None:
    assert documents.arc_prompt(ARC) == (
        f"{HEAD}multiple-choice question.\n\n### Instruction:\n\nQuestion: What {{melts}}?\n\n"
        "Options:\n\n- Ice.\n- {options}\n- Iron\n\n### Response:"
    )


def test_prompt_of_mmlu() -> None:
    assert documents.mmlu_prompt(MMLU) == (
        f"{HEAD}multiple-choice question about high_school_physics.\n\n### Instruction:\n\n"
        "Question:  Why? \n\nOptions:\n\n- a\n- b\n- c\n- d\n\n### Response:"
    )


def test_prompt_of_truthfulqa() -> None:
    prompt = documents.truthfulqa_prompt(TRUTHFUL)
    assert prompt.startswith(f"{HEAD}multiple-choice question.\n\n### Instruction:\nInterpret each")
    assert prompt.endswith(
        "any common mythss.\n\nQuestion: Who?\n\nOptions\n\n- Me\n- You\n- She\n- He"
        "\n\n### Response:"
    )


@pytest.mark.parametrize(
    ("doc", "gold", "target"), [(ARC, 2, "Iron"), (TRUTHFUL, 0, "Me"), (MMLU, 2, "c")]
)
def test_gold_of_each_data_set(doc: dict[str, Any], gold: int, target: str) -> None:
    assert documents.question_of(doc).gold == gold
    assert documents.target(doc) == target
    assert documents.process_results(doc, [target])["acc"] == 1.0


def test_results_hold_the_score_and_every_pathology() -> None:
    result = documents.process_results(TRUTHFUL, ["me or you"])
    assert result == {
        "acc": 0.0, "several_named": 1.0, "empty": 0.0, "ratio_alone": 0.0, "gold_first": 1.0,
    }  # fmt: skip
    assert tuple(result)[1:] == RESPONSE_FLAGS


def test_shuffling_moves_options_with_their_labels_and_is_the_same_each_time() -> None:
    docs = [TRUTHFUL | {"question": f"Who is number {number}?"} for number in range(200)]
    first, again = (documents.shuffle_options(Dataset.from_list(docs)) for _ in range(2))
    assert first.to_list() == again.to_list()
    golds = [documents.question_of(doc).gold for doc in first]
    assert all(documents.target(doc) == "Me" for doc in first)
    for doc in first:
        assert sorted(doc["mc1_targets"]["choices"]) == ["He", "Me", "She", "You"]
    assert all(30 < golds.count(place) < 70 for place in range(4))


GENERATED = [name for name, entry in BENCHMARKS.items() if entry.protocol is PAPER]


@pytest.mark.parametrize("name", GENERATED)
def test_task_files_state_what_the_benchmark_does(
    name: str, shared_root: Path, demo_root: Path
) -> None:
    benchmark = BENCHMARKS[name]
    root = demo_root if benchmark.world == "demo" else shared_root
    loaded = load_benchmark(TaskSpec(name=name, limit=1), root)
    assert benchmark.decoding is not None
    for task in loaded.tasks.values():
        assert task.config.generation_kwargs == {
            "until": [],
            "do_sample": True,
            "temperature": benchmark.decoding.temperature,
            "top_p": benchmark.decoding.top_p,
            "top_k": 0,
            "max_gen_toks": benchmark.decoding.max_new_tokens,
        }
        metrics = [entry["metric"] for entry in task.config.metric_list]
        assert metrics == ["acc", *benchmark.protocol.response_flags] == ["acc", *RESPONSE_FLAGS]


def test_decoding_is_the_published_one() -> None:
    stated = documents.prompt_templates()["decoding"]
    for name in GENERATED:
        benchmark = BENCHMARKS[name]
        assert benchmark.decoding is not None
        found = asdict(benchmark.decoding)
        if benchmark.world == "demo":
            found["max_new_tokens"] = stated["max_new_tokens"]
        assert found == {key: stated[key] for key in found}


def test_the_shuffled_variant_stands_in_no_column() -> None:
    columns = {name: BENCHMARKS[name].column for name in GENERATED}
    assert columns == {
        f"{world}paper_{name}": column
        for world in ("", "demo_")
        for name, column in {
            "arc_easy": "ARC-e",
            "arc_challenge": "ARC-c",
            "mmlu": "MMLU",
            "truthfulqa": "TruthfulQA",
            "truthfulqa_shuffled": None,
        }.items()
    }
