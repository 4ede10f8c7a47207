"""The law: scores are those of lm_eval.simple_evaluate on the same model and items."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pyarrow.parquet
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import load_yaml
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from harness.evaluation import evaluate, evaluate_together
from harness.evaluation.prefix_trie.forward import TrieForward, padded_length
from harness.evaluation.scores import TaskOutcome
from harness.evaluation.task_data import local_files
from harness.evaluation.tasks import TaskSpec
from harness.methods import METHODS
from tests.evaluation.conftest import other_notes

YAML = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
}


@pytest.fixture(autouse=True)
def _no_environment_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """simple_evaluate spends seconds on describing the machine; no number depends on it."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def reference_config(yaml: str, files: dict[str, Path], cache: Path) -> dict[str, Any]:
    """lm-eval's own definition over its own parquet reader; absent splits repeat the first."""
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / yaml)
    config.pop("tag")
    names = ("training_split", "validation_split", "test_split", "fewshot_split")
    splits = [config[name] for name in names if config.get(name)]
    any_file = next(iter(files.values()))
    data_files = {split: str(files.get(split, any_file)) for split in splits}
    return config | {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": data_files, "cache_dir": str(cache)},
    }


def simple_evaluate(
    model: LlamaForCausalLM,
    tokenizer: Any,
    config: dict[str, Any],
    *,
    shots: int,
    limit: int | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the results and the samples of lm-eval's own entry point at another batch size."""
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3),
        tasks=[config],
        num_fewshot=shots,
        limit=limit,
        task_manager=TaskManager(include_defaults=False),
    )
    assert results is not None
    tokenizer.pad_token = None
    return results["results"][config["task"]], results["samples"][config["task"]]


def assert_same(outcome: TaskOutcome, task: str, result: Any, samples: list[Any]) -> None:
    scores = {score.metric: score for score in outcome.scores if score.task == task}
    assert set(scores) == {
        key.partition(",")[0] for key in result if key in ("acc,none", "acc_norm,none")
    }
    for metric, score in scores.items():
        # mc2 is no share of items but a mean of probabilities: as exact as log-likelihoods are.
        assert score.value == pytest.approx(result[f"{metric},none"], abs=1e-5)
        stderr = result[f"{metric}_stderr,none"]
        assert score.stderr == (None if stderr == "N/A" else pytest.approx(stderr, abs=1e-5))
        assert score.n == len(samples)
    items = outcome.items[outcome.items["task"] == task]
    assert len(items) == len(samples)
    for (_, item), sample in zip(items.iterrows(), samples, strict=True):
        expected = [value for value, _ in sample["filtered_resps"]]
        np.testing.assert_allclose(item["choices_loglikelihoods"], expected, rtol=1e-5, atol=1e-5)
        assert item["doc_id"] == sample["doc_id"]
        for metric in scores:
            assert item[metric] == pytest.approx(sample[metric], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "shots", "limit"),
    [
        ("arc_easy", 0, None),
        ("arc_challenge", 3, 7),
        ("hellaswag", 10, None),
        ("truthfulqa_mc1", 0, None),
        ("truthfulqa_mc2", 0, 5),
    ],
)
def test_scores_are_those_of_simple_evaluate(
    name: str,
    shots: int,
    limit: int | None,
    shared_root: Path,
    tmp_path: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    spec = TaskSpec(name=name, shots=shots, limit=limit)
    outcome = evaluate(model, tokenizer, spec, data_root=shared_root, precision="fp32")
    config = reference_config(YAML[name], local_files(spec, shared_root), tmp_path)
    result, samples = simple_evaluate(model, tokenizer, config, shots=shots, limit=limit)
    assert_same(outcome, name, result, samples)


def check_mmlu_subject(
    subject: str, root: Path, tmp_path: Path, model: Any, tokenizer: Any, spec: TaskSpec
) -> TaskOutcome:
    outcome = evaluate(model, tokenizer, spec, data_root=root, precision="fp32")
    files = {}
    for split in ("test", "dev"):
        table = pyarrow.parquet.read_table(root / "mmlu" / f"{split}.parquet")
        mask = [value == subject for value in table["subject"].to_pylist()]
        files[split] = tmp_path / f"{split}.parquet"
        pyarrow.parquet.write_table(table.filter(mask), files[split])
    config = reference_config(f"mmlu/default/mmlu_{subject}.yaml", files, tmp_path)
    result, samples = simple_evaluate(
        model, tokenizer, config, shots=spec.num_shots, limit=spec.limit
    )
    assert_same(outcome, f"mmlu_{subject}", result, samples)
    return outcome


def test_a_subject_of_mmlu_scores_as_in_simple_evaluate(
    shared_root: Path, tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = TaskSpec(name="mmlu", shots=2)
    outcome = check_mmlu_subject("virology", shared_root, tmp_path, model, tokenizer, spec)
    tasks = [score.task for score in outcome.scores]
    assert tasks[:2] == ["mmlu", "mmlu"]
    assert len(tasks) == 2 + 57


@pytest.mark.parametrize(
    ("name", "limit"),
    [("arc_easy", 6), ("hellaswag", 2), ("truthfulqa_mc1", 2), ("truthfulqa_mc2", 2), ("mmlu", 1)],
)
def test_scores_are_those_of_simple_evaluate_on_real_items(
    name: str, limit: int, real_root: Path, tmp_path: Path
) -> None:
    folder = real_root / "stories260k_hf"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    spec = TaskSpec(name=name, limit=limit)
    if name == "mmlu":
        check_mmlu_subject("anatomy", real_root, tmp_path, model, tokenizer, spec)
        return
    outcome = evaluate(model, tokenizer, spec, data_root=real_root, precision="fp32")
    config = reference_config(YAML[name], local_files(spec, real_root), tmp_path)
    result, samples = simple_evaluate(model, tokenizer, config, shots=spec.num_shots, limit=limit)
    assert_same(outcome, name, result, samples)


def test_the_next_model_gets_its_own_scores(
    shared_root: Path,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    spec = TaskSpec(name="hellaswag", shots=2)
    models = [make_model(1), make_model(2), make_model(1)]
    first, second, again = (
        evaluate(model, tokenizer, spec, data_root=shared_root, precision="fp32")
        for model in models
    )
    column = "choices_loglikelihoods"
    assert first.items[column].tolist() == again.items[column].tolist()
    assert first.items[column].tolist() != second.items[column].tolist()


def test_the_token_budget_changes_no_score(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    frames = [
        evaluate(
            model,
            tokenizer,
            TaskSpec(name="arc_easy"),
            data_root=shared_root,
            precision="fp32",
            token_budget=budget,
        ).items
        for budget in (64, 500, 8192)
    ]
    for frame in frames[1:]:
        np.testing.assert_allclose(
            np.concatenate(frame["choices_loglikelihoods"].tolist()),
            np.concatenate(frames[0]["choices_loglikelihoods"].tolist()),
            rtol=1e-5,
        )


def test_benchmarks_that_share_requests_are_scored_together_and_each_of_them_once(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tasks = [TaskSpec(name=name, limit=5) for name in ("truthfulqa_mc1", "truthfulqa_mc2")]
    settings: dict[str, Any] = {"data_root": shared_root, "precision": "fp32"}
    alone = [evaluate(model, tokenizer, task, **settings) for task in tasks]
    fed = []
    hook = model.register_forward_pre_hook(
        lambda _m, _a, named: fed.append(named["input_ids"].numel()), with_kwargs=True
    )
    both = evaluate_together(model, tokenizer, tasks, **settings)
    together, fed[:] = sum(fed), []
    for task in tasks:
        evaluate(model, tokenizer, task, **settings)
    hook.remove()
    assert together < 0.8 * sum(fed)  # the preamble and the questions are read once
    for one, other in zip(both, alone, strict=True):
        assert [score.task for score in one.scores] == [score.task for score in other.scores]
        assert one.scores[0].value == pytest.approx(other.scores[0].value, abs=1e-5)
        for column in ("choices_loglikelihoods", "prediction", "gold"):
            for first, second in zip(one.items[column], other.items[column], strict=True):
                assert first == pytest.approx(second, abs=1e-5)


def test_a_halved_budget_and_a_fallback_are_noted_beside_the_score(
    shared_root: Path,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[str, Any] = {"data_root": shared_root, "precision": "fp32"}
    task, model = TaskSpec(name="arc_easy"), make_model()
    assert other_notes(evaluate(model, tokenizer, task, **settings).scores[0].note) == []
    forward = TrieForward.run

    def small_memory(self: TrieForward, rows: Any, *others: Any, **named: Any) -> Any:
        if len(rows) * padded_length(rows) > 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, rows, *others, **named)

    monkeypatch.setattr(TrieForward, "run", small_memory)
    halved = evaluate(model, tokenizer, task, **settings)
    assert halved.batching.setting > halved.batching.effective
    assert other_notes(halved.scores[0].note) == [
        f"memory ran out with 4096 tokens at once, not with {halved.batching.effective}"
    ]
    prompt_tuning = METHODS["prompt-tuning"]
    adapted = prompt_tuning.apply(make_model(), prompt_tuning.options(), 0)
    virtual = evaluate(adapted, tokenizer, task, **settings)
    reason = "prompt_tuning adds virtual tokens to every row"
    assert other_notes(virtual.scores[0].note) == [f"scored request by request: {reason}"]
    assert virtual.scores[0].fallback == reason


def test_prompts_have_an_identity(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    specs = [
        TaskSpec(name="arc_easy"),
        TaskSpec(name="arc_easy", shots=1),
        TaskSpec(name="arc_easy", limit=3),
        TaskSpec(name="arc_easy"),
    ]
    outcomes = [
        evaluate(model, tokenizer, spec, data_root=shared_root, precision="fp32") for spec in specs
    ]
    first, shots, limited, again = (outcome.scores[0].prompts_sha256 for outcome in outcomes)
    assert first == again
    assert len({first, shots, limited}) == 3


def test_progress_counts_every_request_once(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        model,
        tokenizer,
        TaskSpec(name="mmlu", limit=1),
        data_root=shared_root,
        precision="fp32",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 57 * 4) for done in range(1, 57 * 4 + 1)]


def test_nothing_is_printed_and_nothing_cached_on_disk(
    shared_root: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Outside a git checkout, with a model that is too short for the requests."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    code = f"""
import sys
from pathlib import Path
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from harness.evaluation import evaluate
from harness.evaluation.tasks import TaskSpec
tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / "tokenizer")!r})
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **shape)
for name in ("hellaswag", "mmlu"):
    task = TaskSpec(name=name, shots=1, limit=1)
    root = Path({str(shared_root)!r})
    outcome = evaluate(LlamaForCausalLM(config), tokenizer, task, data_root=root, precision="fp32")
    assert outcome.scores[0].note is not None
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert not list((tmp_path / "hf").rglob("*"))
