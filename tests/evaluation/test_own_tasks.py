"""The law: scores of any task of lm-eval are those of lm_eval.simple_evaluate, errors included."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from harness.evaluation import evaluate
from harness.evaluation.own_benchmarks import metric_key
from harness.evaluation.scores import TaskOutcome
from harness.evaluation.tasks import LocalFile, TaskSpec
from tests.evaluation.conftest import WORDS

CHAT = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)

DRAWS = 100
"""Of the bootstrap."""
COMMON = "test_split: test\ntraining_split: train\nmetadata: {version: 2.5}\n"
TASKS = {
    "own_choice": """
output_type: multiple_choice
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{options}}"
doc_to_target: "{{gold}}"
num_fewshot: 2
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
  - {metric: mcc}
  - {metric: brier_score, higher_is_better: false}
""",
    "own_referent": """
output_type: multiple_choice
doc_to_text: "{{gold}}"
doc_to_choice: !function code.sentences
doc_to_target: "{{question}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "own_word": """
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{options[0]}}"
num_fewshot: 0
""",
    "own_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{page}}"
""",
    "own_answer": """
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{options[gold]}}"
num_fewshot: 1
generation_kwargs: {until: ["ver", "q"], max_gen_toks: 12, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
  - name: any-text
    filter:
      - {function: regex, regex_pattern: "([a-z ]+)", group_select: -1}
      - {function: take_first}
""",
    "own_translation": """
output_type: generate_until
doc_to_text: "{{question}} ="
doc_to_target: "{{options[0]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 10}
metric_list:
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
  - {metric: chrf, aggregation: chrf, higher_is_better: true}
""",
    "own_votes": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{options[0]}}"
repeats: 3
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: true, temperature: 0.7}
filter_list:
  - name: maj
    filter: [{function: majority_vote}, {function: take_first}]
""",
}
GROUPS = """
group: own_group
task:
  - own_choice
  - group: inner
    task: [own_choice_b]
    aggregate_metric_list: [{metric: acc, weight_by_size: true}]
aggregate_metric_list:
  - {metric: acc, weight_by_size: %s}
  - {metric: acc_norm, weight_by_size: true}
metadata: {version: 3}
"""
CODE = """
def sentences(doc):
    return [f"{option} knows that" for option in doc["options"]]
"""


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [
        {
            "question": text(3, 9),
            "options": [text(1, 4) for _ in range(3)],
            "gold": draw.randrange(3),
            "page": text(20, 60),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks of one's own, and their rows as JSON Lines."""
    root = tmp_path_factory.mktemp("own")
    (root / "tasks").mkdir()
    for seed, (split, count) in enumerate((("test", 14), ("train", 6), ("small", 5))):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, seed))
        (root / f"{split}.jsonl").write_text(lines)
    (root / "tasks" / "code.py").write_text(CODE)
    named = TASKS | {"own_choice_b": TASKS["own_choice"]}
    for name, text in named.items():
        test = "small" if name == "own_choice_b" else "test"
        files = {"test": f"{root}/{test}.jsonl", "train": f"{root}/train.jsonl"}
        data = f"dataset_path: json\ndataset_kwargs: {json.dumps({'data_files': files})}\n"
        (root / "tasks" / f"{name}.yaml").write_text(f"task: {name}\n{data}{COMMON}{text}")
    (root / "tasks" / "group.yaml").write_text(GROUPS % "false")
    return root


def spec_of(folder: Path, name: str, **settings: Any) -> TaskSpec:
    names = ["own_choice", "own_choice_b"] if name == "own_group" else [name]
    files = []
    for one in names:
        test = "small" if one == "own_choice_b" else "test"
        files += [LocalFile(task=one, split="test", path=f"{folder}/{test}.jsonl")]
        files += [LocalFile(task=one, split="train", path=f"{folder}/train.jsonl")]
    include = str(folder / "tasks")
    return TaskSpec(include=include, name=name, files=tuple(files), **settings)


@pytest.fixture(scope="module")
def qwen(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A second model shape: biases in attention, tied embeddings."""
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=1, max_position_embeddings=256,
        initializer_range=0.3, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No report on the machine; lm-eval's reader of JSON writes into a folder of the test's own."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("harness.evaluation.lm_eval_session.BOOTSTRAP_DRAWS", DRAWS)


def reference(
    model: Any, tokenizer: Any, folder: Path, name: str, batch_size: int = 1, **settings: Any
) -> Mapping[str, Any]:
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        bootstrap_iters=DRAWS,
        **settings,
    )
    tokenizer.pad_token = None
    assert found is not None
    return found


def assert_same(outcome: TaskOutcome, found: Mapping[str, Any], name: str) -> float:
    """All metrics of a task or group and their errors; returns the largest difference."""
    result = found["results"][name]
    keys = [key for key in result if "," in key and "_stderr," not in key]
    scores = {score.metric: score for score in outcome.scores if score.task == name}
    assert set(scores) == {metric_key(*key.split(",")) for key in keys}
    largest = 0.0
    for key in keys:
        metric, filter_name = key.split(",")
        score = scores[metric_key(metric, filter_name)]
        assert score.value == pytest.approx(result[key], rel=1e-5, abs=1e-5)
        stderr = result[f"{metric}_stderr,{filter_name}"]
        assert score.stderr == (None if stderr == "N/A" else pytest.approx(stderr, rel=1e-4))
        assert score.task_version == str(found["versions"][name])
        largest = max(largest, abs(score.value - result[key]))
    return largest


@pytest.mark.parametrize("name", [*(name for name in TASKS if name != "own_votes"), "own_group"])
def test_scores_and_errors_are_those_of_simple_evaluate(
    name: str, folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = spec_of(folder, name)
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(model, tokenizer, folder, name)
    for task in [name, *(["own_choice", "own_choice_b"] if name == "own_group" else [])]:
        largest = assert_same(outcome, found, task)
        print(f"{name} {task}: {largest:.1e}")
    if name == "own_group":
        assert [score.task for score in outcome.scores][:2] == ["own_group", "own_group"]
        assert "inner" in "".join(score.task for score in outcome.scores)
