from __future__ import annotations

import hashlib
import math
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.errors import DataError, EvaluationError
from harness.evaluation import evaluate
from harness.evaluation.scores import TaskOutcome, tokenizer_sha256
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET, TaskSpec, request_key
from scripts.make_schema_page import CHOICE_ITEMS, ITEMS
from tests.evaluation.conftest import other_notes, write_rows

Score = Callable[..., TaskOutcome]


@pytest.fixture
def score(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Score:
    def run(name: str, root: Path, **task: int) -> TaskOutcome:
        spec = TaskSpec(name=name, **task)  # type: ignore[arg-type]
        return evaluate(model, tokenizer, spec, data_root=root, precision="fp32")

    return run


@pytest.mark.parametrize("name", ["mmlu", "demo_mmlu"])
def test_micro_and_macro_means_of_a_group(
    name: str, score: Score, shared_root: Path, demo_root: Path
) -> None:
    outcome = score(name, shared_root if name == "mmlu" else demo_root)
    by_subject = defaultdict(list)
    for _, item in outcome.items.iterrows():
        by_subject[item["task"]].append(item["acc"])
    top = {entry.metric: entry for entry in outcome.scores if entry.task == name}
    answers = [value for values in by_subject.values() for value in values]
    means = [np.mean(values) for values in by_subject.values()]
    errors = [np.std(values, ddof=1) / len(values) ** 0.5 for values in by_subject.values()]
    assert top["acc"].value == pytest.approx(np.mean(answers))
    assert top["acc_macro"].value == pytest.approx(np.mean(means))
    assert top["acc_macro"].stderr == pytest.approx(math.hypot(*errors) / len(errors))
    assert top["acc"].value != top["acc_macro"].value
    assert top["acc"].n == top["acc_macro"].n == len(answers)
    subjects = {entry.task: entry for entry in outcome.scores if entry.metric == "acc"}
    subjects.pop(name)
    assert {task: entry.n for task, entry in subjects.items()} == {
        task: len(values) for task, values in by_subject.items()
    }


def test_one_item_per_subject_has_no_standard_error(score: Score, shared_root: Path) -> None:
    outcome = score("mmlu", shared_root, limit=1)
    assert all(entry.stderr is None for entry in outcome.scores)
    assert outcome.scores[0].n == 57
    assert outcome.scores[0].limit == 1


def test_a_score_says_what_it_means(
    score: Score, shared_root: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    outcome = score("hellaswag", shared_root, shots=4, limit=3)
    assert [entry.metric for entry in outcome.scores] == ["acc", "acc_norm"]
    for entry in outcome.scores:
        assert entry.key == request_key(TaskSpec(name="hellaswag", shots=4, limit=3))
        assert (entry.protocol, entry.benchmark, entry.task) == (
            "lm-eval",
            "hellaswag",
            "hellaswag",
        )
        assert (entry.shots, entry.limit, entry.n) == (4, 3, 3)
        assert entry.task_version == "1.0"
        assert entry.data_source == "hellaswag/validation.parquet + hellaswag/train.parquet"
        assert entry.tokenizer_sha256 == tokenizer_sha256(tokenizer)
        assert entry.precision == "fp32"
        assert other_notes(entry.note) == []
        assert entry.bos == "token 1"
        assert entry.token_budget == DEFAULT_TOKEN_BUDGET
        assert (entry.fallback, entry.scored_with) == (None, ())


def test_items_hold_what_the_metrics_were_made_of(score: Score, shared_root: Path) -> None:
    items = score("arc_easy", shared_root).items
    rows = pyarrow.parquet.read_table(shared_root / "arc_easy" / "test.parquet").to_pylist()
    assert items["question_id"].tolist() == [row["id"] for row in rows]
    for (_, item), row in zip(items.iterrows(), rows, strict=True):
        gold = row["choices"]["label"].index(row["answerKey"])
        lengths = [len(text) for text in row["choices"]["text"]]
        by_length = np.array(item["choices_loglikelihoods"]) / lengths
        assert item["gold"] == gold
        assert item["choice_lengths"] == lengths
        assert item["prediction"] == np.argmax(item["choices_loglikelihoods"])
        assert item["prediction_norm"] == np.argmax(by_length)
        assert item["acc"] == (item["prediction"] == gold)
        assert item["acc_norm"] == (item["prediction_norm"] == gold)
    assert items["acc"].nunique() == 2


def test_items_of_mc2_have_all_true_answers(score: Score, shared_root: Path) -> None:
    items = score("truthfulqa_mc2", shared_root).items
    assert items["gold"].tolist() == [[0, 1]] * len(items)
    assert items["prediction_norm"].isna().all()
    for _, item in items.iterrows():
        shares = np.exp(np.array(item["choices_loglikelihoods"]))
        assert item["acc"] == pytest.approx(shares[:2].sum() / shares.sum())


def test_items_survive_parquet(score: Score, shared_root: Path, tmp_path: Path) -> None:
    for name in ("mmlu", "truthfulqa_mc2"):
        items = score(name, shared_root, limit=1).items
        items.to_parquet(tmp_path / "items.parquet")
        back = pandas.read_parquet(tmp_path / "items.parquet")
        assert list(back.columns) == list(items.columns)
        documented = set(ITEMS | CHOICE_ITEMS)
        assert documented - {"acc_norm"} <= set(back.columns) <= documented
        assert [list(v) for v in back["choices_loglikelihoods"]] == items[
            "choices_loglikelihoods"
        ].tolist()


def test_question_ids_depend_on_content_alone(
    score: Score, shared_root: Path, tmp_path: Path
) -> None:
    before = score("truthfulqa_mc1", shared_root).items["question_id"].tolist()
    path = tmp_path / "truthfulqa_mc" / "validation.parquet"
    rows = pyarrow.parquet.read_table(shared_root / "truthfulqa_mc/validation.parquet").to_pylist()
    write_rows(path, [row | {"source": "elsewhere"} for row in reversed(rows)])
    after = score("truthfulqa_mc1", tmp_path).items["question_id"].tolist()
    assert after == before[::-1]
    assert len(set(before)) == len(before)


def test_weights_that_are_no_numbers_give_no_score(
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    shared_root: Path,
) -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(
        EvaluationError, match=r"arc_easy: \d+ of \d+ log-likelihoods are not a number"
    ):
        evaluate(
            model, tokenizer, TaskSpec(name="arc_easy"), data_root=shared_root, precision="fp32"
        )


def test_a_gold_answer_that_is_no_choice_is_named(
    score: Score, shared_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(shared_root, tmp_path / "data")
    path = root / "hellaswag" / "validation.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[2]["label"] = "7"
    write_rows(path, rows)
    with pytest.raises(DataError, match="row 2 .*, column label: '7' is no number from 0 to 3"):
        score("hellaswag", root, shots=0)


def test_the_tokenizers_identity_ignores_what_calls_leave_behind(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    fresh = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    assert tokenizer_sha256(tokenizer) == fresh
    tokenizer("river stone", truncation=True, max_length=2)
    state = tokenizer.backend_tokenizer.truncation
    assert state is not None
    assert tokenizer_sha256(tokenizer) == fresh
    assert tokenizer.backend_tokenizer.truncation == state
    tokenizer("river stone")
