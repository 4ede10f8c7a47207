"""From a benchmark to its records, through zbench and through plain lm-eval."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import lm_eval
import pandas
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from harness.analysis.frames import scores_of
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.paper.documents import question_of
from harness.evaluation.paper.matching import RESPONSE_FLAGS, judge
from harness.evaluation.paper.run import score_benchmarks
from harness.evaluation.protocols import PAPER
from harness.evaluation.tasks import TaskSpec, request_key, scored_together
from harness.records.results import CellResult
from harness.records.scores import TaskScore
from scripts.make_schema_page import ITEMS, RESPONSE_ITEMS
from tests.evaluation.conftest import DEMO_SUBJECTS, mmlu_subjects

TASKS = Path(str(files("harness"))) / "evaluation" / "paper" / "tasks"


@pytest.fixture(scope="module")
def short(make_model: Callable[..., Any]) -> Any:
    """A model with few positions: at most 100 new tokens, and long prompts lose their beginning."""
    return make_model(2, max_length=200)


def run(model: Any, tokenizer: Any, root: Path, name: str, **settings: Any) -> Any:
    task = TaskSpec(name=name, **settings)
    return evaluate(model, tokenizer, task, data_root=root, precision="fp32")


def test_scores_and_items_of_a_benchmark(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    outcome = run(short, tokenizer, shared_root, "paper_arc_easy")
    (score,) = outcome.scores
    items = outcome.items
    assert set(items.columns) == set(ITEMS | RESPONSE_ITEMS)
    assert (score.protocol, score.metric, score.n, score.shots) == ("paper", "acc", 12, 0)
    assert score.value == items["acc"].mean()
    assert score.stderr == pytest.approx(items["acc"].std(ddof=1) / 12**0.5)
    assert score.temperature == 0.1
    assert score.task_version == "1.0"
    assert score.response_flags == {name: int(items[name].sum()) for name in RESPONSE_FLAGS}
    assert list(items["question_id"]) == [f"q{number}" for number in range(12)]
    assert "at most 100 new tokens, not 512: the model has 200 positions" in (score.note or "")
    assert "lost their beginning" in (score.note or "")
    docs = pandas.read_parquet(shared_root / "arc_easy" / "test.parquet").to_dict("records")
    for doc, item in zip(docs, items.to_dict("records"), strict=True):
        doc["choices"] = {name: list(value) for name, value in doc["choices"].items()}
        question = question_of(doc)
        verdict = judge(item["response"], question.options, question.gold)
        assert item["gold"] == question.gold
        assert item["acc"] == verdict.right
        assert (None if pandas.isna(item["prediction"]) else item["prediction"]) == (
            verdict.prediction
        )
        assert 0 <= item["num_tokens"] <= 100
        assert item["ended"] == (item["num_tokens"] < 100) or item["num_tokens"] == 100


def test_records_survive_their_files(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path, tmp_path: Path
) -> None:
    outcome = run(short, tokenizer, shared_root, "paper_truthfulqa", limit=3)
    result = CellResult(cell={}, cell_id="0", scores=outcome.scores)
    assert CellResult.from_json(result.to_json()) == result
    outcome.items.to_parquet(tmp_path / "items.parquet")
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "items.parquet"), outcome.items
    )
    old = json.loads(result.to_json())
    for score in old["scores"]:
        for name in ("temperature", "pathologies", "prompts_sha256"):
            del score[name]
    (read,) = CellResult.from_json(json.dumps(old)).scores
    assert read.response_flags == {}
    assert read.prompts_sha256 is None


def test_mmlu_has_both_means_and_each_subject(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    outcome = run(short, tokenizer, shared_root, "paper_mmlu", limit=3, temperature=0)
    micro, macro, *subjects = outcome.scores
    assert (micro.task, micro.metric) == ("paper_mmlu", "acc")
    assert (macro.task, macro.metric) == ("paper_mmlu", "acc_macro")
    assert [one.task for one in subjects] == [f"paper_mmlu_{name}" for name in mmlu_subjects()]
    items = outcome.items
    assert micro.n == macro.n == len(items)
    assert micro.value == pytest.approx(items["acc"].mean())
    assert macro.value == pytest.approx(items.groupby("task")["acc"].mean().mean())
    assert (
        sum(one.response_flags["gold_first"] for one in subjects)
        == micro.response_flags["gold_first"]
    )
    assert "generated at temperature 0, not 0.1" in (micro.note or "")


def test_the_demos_subjects_are_those_of_its_data(
    short: Any, tokenizer: PreTrainedTokenizerFast, demo_root: Path
) -> None:
    outcome = run(short, tokenizer, demo_root, "demo_paper_mmlu")
    tasks = [score.task for score in outcome.scores[2:]]
    assert tasks == [f"demo_paper_mmlu_{subject}" for subject in DEMO_SUBJECTS]
    assert outcome.items["num_tokens"].max() <= 32


def test_shuffled_options_keep_their_gold(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    plain, shuffled = (
        run(short, tokenizer, shared_root, name)
        for name in ("paper_truthfulqa", "paper_truthfulqa_shuffled")
    )
    assert plain.items["gold"].eq(0).all()
    assert shuffled.items["gold"].nunique() > 1
    assert plain.scores[0].response_flags["gold_first"] == 8
    assert shuffled.scores[0].response_flags["gold_first"] < 8
    assert plain.scores[0].prompts_sha256 != shuffled.scores[0].prompts_sha256


def test_the_next_evaluation_gives_the_same_text_and_leaves_the_model_as_it_was(
    make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    model = make_model(2, max_length=200).train()
    model.config.use_cache = True
    first, again = (run(model, tokenizer, shared_root, "paper_arc_easy") for _ in range(2))
    pandas.testing.assert_frame_equal(first.items, again.items)
    assert first.scores == again.scores
    assert model.training
    assert model.config.use_cache
    assert tokenizer.pad_token is None


def test_the_number_of_rows_changes_no_response(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    from harness.evaluation.loading import load_benchmark

    loaded = load_benchmark(TaskSpec(name="paper_arc_easy"), shared_root)
    frames = [
        score_benchmarks([loaded], short, tokenizer, precision="fp32", num_rows=rows)[0].items
        for rows in (1, 5, 64)
    ]
    pandas.testing.assert_frame_equal(frames[0], frames[1])
    pandas.testing.assert_frame_equal(frames[0], frames[2])


def test_plain_lm_eval_runs_the_same_tasks_from_local_files(
    make_model: Callable[..., Any],
    tokenizer: PreTrainedTokenizerFast,
    shared_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Greedily, so that both say the same."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    model = make_model(2, max_length=1024).eval()
    for name, split in (("arc_easy", "test"), ("truthfulqa", "validation")):
        folder = {"truthfulqa": "truthfulqa_mc"}.get(name, name)
        (tmp_path / f"{name}.yaml").write_text(
            f"include: {TASKS / f'paper_{name}.yaml'}\n"
            f"task: local_{name}\n"
            "dataset_path: parquet\n"
            "dataset_name: null\n"
            "dataset_kwargs:\n"
            f"  cache_dir: {tmp_path / 'cache'}\n"
            f"  data_files: {{{split}: {shared_root / folder / f'{split}.parquet'}}}\n"
            "generation_kwargs: {until: [], do_sample: false, max_gen_toks: 20}\n"
        )
    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=True)
    results = lm_eval.simple_evaluate(
        model=peer,
        tasks=["local_arc_easy", "local_truthfulqa"],
        task_manager=TaskManager(include_defaults=False, include_path=str(tmp_path)),
    )
    assert results is not None
    tokenizer.pad_token = None
    for name in ("arc_easy", "truthfulqa"):
        found = results["results"][f"local_{name}"]
        assert {f"{metric},none" for metric in ("acc", *RESPONSE_FLAGS)} <= set(found)
        samples = results["samples"][f"local_{name}"]
        texts = [sample["filtered_resps"][0] for sample in samples]
        task = TaskSpec(name=f"paper_{name}", temperature=0)
        ours = evaluate(model, tokenizer, task, data_root=shared_root, precision="fp32").items
        # The benchmark's own responses are longer, and read on where lm-eval's may end in the
        # middle of a character.
        for text, response in zip(texts, ours["response"], strict=True):
            assert response.startswith(text.rstrip("\N{REPLACEMENT CHARACTER}"))


def test_plain_lm_eval_knows_every_task() -> None:
    known = TaskManager(include_defaults=False, include_path=str(TASKS)).task_index
    names = {name for name, one in BENCHMARKS.items() if one.protocol is PAPER and not one.world}
    assert names <= set(known)
    assert {f"paper_mmlu_{subject}" for subject in mmlu_subjects()} <= set(known)


def test_a_temperature_is_refused_where_nothing_is_generated() -> None:
    with pytest.raises(ValidationError, match="arc_easy scores log-likelihoods"):
        TaskSpec(name="arc_easy", temperature=0)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TaskSpec(name="paper_arc_easy", temperature=-1)


def test_few_shot_examples_are_refused() -> None:
    with pytest.raises(ValidationError, match="takes no few-shot examples"):
        TaskSpec(name="paper_mmlu", shots=5)


def test_keys_tell_temperatures_apart_and_those_of_log_likelihoods_stay() -> None:
    sampled, greedy = (
        TaskSpec(name="paper_arc_easy"),
        TaskSpec(name="paper_arc_easy", temperature=0),
    )
    assert request_key(sampled) != request_key(greedy)
    assert request_key(sampled) == request_key(TaskSpec(name="paper_arc_easy", temperature=0.1))
    assert scored_together([sampled, TaskSpec(name="arc_easy")]) == [
        (sampled,), (TaskSpec(name="arc_easy"),),
    ]  # fmt: skip


def test_a_score_of_another_temperature_answers_no_request(
    short: Any, tokenizer: PreTrainedTokenizerFast, shared_root: Path
) -> None:
    (score,) = run(short, tokenizer, shared_root, "paper_arc_easy", limit=2).scores
    older = TaskScore(**(asdict(score) | {"key": "of another version"}))
    result = CellResult(cell={}, cell_id="0", scores=(older,))
    assert scores_of(TaskSpec(name="paper_arc_easy", limit=2), result) == (older,)
    assert scores_of(TaskSpec(name="paper_arc_easy", limit=2, temperature=0), result) == ()
