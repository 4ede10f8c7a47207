"""The law: scores of any task of lm-eval are those of lm_eval.simple_evaluate, errors included."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from harness.data.jinja import DATE_STRING
from harness.errors import EvaluationError
from harness.evaluation import evaluate
from harness.evaluation.chat import chat_template_of
from harness.evaluation.loading import load_benchmark
from harness.evaluation.own_benchmarks import metric_key
from harness.evaluation.scores import TaskOutcome
from harness.evaluation.tasks import LocalFile, TaskSpec
from tests.fixtures.own_tasks import CHAT, TASKS, spec_of

DRAWS = 100
"""Of the bootstrap."""


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
    """All metrics of a task or group and their errors; returns the largest relative difference."""
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
        largest = max(largest, abs(score.value - result[key]) / max(1.0, abs(result[key])))
    return largest


@pytest.mark.parametrize("name", [*(name for name in TASKS if name != "own_votes"), "own_group"])
def test_scores_and_errors_are_those_of_simple_evaluate(
    name: str, folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = spec_of(folder, name)
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(model, tokenizer, folder, name)
    for task in [name, *(["own_choice", "own_choice_b"] if name == "own_group" else [])]:
        assert assert_same(outcome, found, task) < 1e-6
    if name == "own_group":
        assert [score.task for score in outcome.scores][:2] == ["own_group", "own_group"]
        assert "inner" in "".join(score.task for score in outcome.scores)


def test_every_member_and_inner_group_has_its_score(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    outcome = evaluate(
        model, tokenizer, spec_of(folder, "own_group"), data_root=None, precision="fp32"
    )
    sizes = {score.task: score.n for score in outcome.scores}
    assert sizes == {"own_group": 19, "own_choice": 14, "own_choice_b": 5, "own_group::inner": 5}
    assert set(outcome.items["task"]) == {"own_choice", "own_choice_b"}
    for item in outcome.items.to_dict("records"):  # with its texts, which no file here holds else
        lengths = [len(option) for option in item["options"]]
        assert item["question"]
        assert lengths == list(item["choice_lengths"])


def test_perplexities_say_what_they_count_and_which_way_is_better(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    outcome = evaluate(
        model, tokenizer, spec_of(folder, "own_text"), data_root=None, precision="fp32"
    )
    names = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
    assert [score.metric for score in outcome.scores] == names
    assert [score.unit for score in outcome.scores] == names
    assert not any(score.higher_is_better for score in outcome.scores)
    assert all(outcome.items["question"])


@pytest.mark.parametrize("shape", ["llama", "qwen"])
@pytest.mark.parametrize("name", ["own_answer", "own_translation"])
def test_greedy_text_is_that_of_hflm(
    name: str, shape: str, folder: Path, model: Any, qwen: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    chosen = {"llama": model, "qwen": qwen}[shape]
    spec = spec_of(folder, name)
    outcome = evaluate(chosen, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(chosen, tokenizer, folder, name)
    expected = {sample["doc_id"]: sample["resps"][0][0] for sample in found["samples"][name]}
    responses = dict(zip(outcome.items["doc_id"], outcome.items["response"], strict=True))
    assert responses == expected
    assert len(set(responses.values())) > 3
    if name == "own_answer":
        assert outcome.items["ended"].sum() > 0
        filters = {sample["filter"] for sample in found["samples"][name]}
        assert filters == set(outcome.items["filtered"][0])
    assert_same(outcome, found, name)


@pytest.mark.parametrize("name", ["own_choice", "own_answer"])
@pytest.mark.parametrize("multiturn", [True, False])
def test_chats_are_those_of_simple_evaluate(
    name: str,
    multiturn: bool,
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    chat = {
        "apply_chat_template": True,
        "fewshot_as_multiturn": multiturn,
        "system_instruction": "river stone",
    }
    spec = spec_of(folder, name, shots=2, limit=5, **chat)
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(model, tokenizer, folder, name, num_fewshot=2, limit=5, **chat)
    assert_same(outcome, found, name)
    plain = evaluate(
        model, tokenizer, spec_of(folder, name, limit=5), data_root=None, precision="fp32"
    )
    assert plain.scores[0].prompts_sha256 != outcome.scores[0].prompts_sha256
    assert plain.scores[0].key != outcome.scores[0].key


@pytest.mark.parametrize("date", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string }}"])
def test_a_chat_is_of_the_day_of_the_training_rows(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content }}, " + date)
    assert chat_template_of(tokenizer)([{"role": "user", "content": "a"}]) == f"a, {DATE_STRING}"


def test_a_tokenizer_without_a_template_is_told(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = spec_of(folder, "own_choice", apply_chat_template=True)
    with pytest.raises(EvaluationError, match="has no chat template"):
        evaluate(model, tokenizer, spec, data_root=None, precision="fp32")


def test_drawn_responses_belong_to_the_item_and_its_repeat(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = evaluate(
        model, tokenizer, spec_of(folder, "own_votes"), data_root=None, precision="fp32"
    )
    few = evaluate(
        model, tokenizer, spec_of(folder, "own_votes", limit=4), data_root=None, precision="fp32"
    )
    of_whole = [list(texts) for texts in whole.items["responses"]]
    assert of_whole[:4] == [list(texts) for texts in few.items["responses"]]
    assert any(len(set(texts)) == 3 for texts in of_whole)
    greedy = spec_of(folder, "own_votes", temperature=0)
    outcome = evaluate(model, tokenizer, greedy, data_root=None, precision="fp32")
    assert all(len(set(texts)) == 1 for texts in outcome.items["responses"])
    assert "generated at temperature 0, not 0.7" in str(outcome.scores[0].note)


def test_another_draw_gives_other_responses_and_the_same_one_the_same(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    first = spec_of(folder, "own_votes", limit=4)
    again = first.drawn(1)
    assert spec_of(folder, "own_choice").drawn(1).draw is None  # nothing of it is sampled
    outcomes = [
        evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
        for spec in (first, again, again)
    ]
    texts = [[tuple(own) for own in one.items["responses"]] for one in outcomes]
    assert texts[0] != texts[1] == texts[2]
    keys = [one.scores[0].key for one in outcomes]
    assert keys[0] != keys[1] == keys[2]


def test_rolling_texts_longer_than_the_model_are_cut_into_windows_as_hflm_does(
    folder: Path, make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    short = make_model(2, max_length=24)
    spec = spec_of(folder, "own_text")
    outcome = evaluate(short, tokenizer, spec, data_root=None, precision="fp32")
    assert_same(outcome, reference(short, tokenizer, folder, "own_text"), "own_text")


def test_generated_code_may_run_while_its_task_is_scored_and_no_longer(
    tmp_path: Path,
    folder: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    (tmp_path / "code.py").write_text(
        "import os\ndef judge(doc, results):\n"
        "    return {'acc': float(os.environ['HF_ALLOW_CODE_EVAL'])}\n"
    )
    (tmp_path / "t.yaml").write_text(
        "task: t\ntest_split: test\noutput_type: generate_until\nunsafe_code: true\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: '{{gold}}'\n"
        "generation_kwargs: {until: [q], max_gen_toks: 2}\n"
        "process_results: !function code.judge\nmetric_list: [{metric: acc, aggregation: mean}]\n"
    )
    file = LocalFile(task="t", split="test", path=f"{folder}/test.jsonl")
    with pytest.raises(ValueError, match="runs the code that a model writes"):
        TaskSpec(include=str(tmp_path), name="t", files=(file,))
    spec = TaskSpec(
        include=str(tmp_path), name="t", files=(file,), allow_code_execution=True, limit=2
    )
    (score,) = evaluate(model, tokenizer, spec, data_root=None, precision="fp32").scores
    assert score.value == 1.0
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_a_checkpoint_that_changes_the_likeliest_token_is_generated_as_by_hflm(
    folder: Path, make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model(6)
    model.generation_config.repetition_penalty = 1.4
    spec = spec_of(folder, "own_answer", limit=4)
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(model, tokenizer, folder, "own_answer", limit=4)
    samples = found["samples"]["own_answer"]
    expected = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    assert dict(zip(outcome.items["doc_id"], outcome.items["response"], strict=True)) == expected
    assert "sets repetition_penalty" in str(outcome.scores[0].note)


def test_new_tokens_that_a_short_model_has_no_room_for_are_told(
    folder: Path, make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    short = make_model(2, max_length=12)
    spec = spec_of(folder, "own_answer", limit=2)
    outcome = evaluate(short, tokenizer, spec, data_root=None, precision="fp32")
    assert "at most 6 new tokens, not 12: the model has 12 positions" in str(outcome.scores[0].note)


@pytest.fixture
def shuffled(folder: Path, tmp_path: Path) -> Path:
    """A task whose code draws the order of the options: from Python's random numbers (`order`), or
    from a generator that its module makes once (`own_order`).
    """
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "code.py").write_text(
        "import random\nOWN = random.Random(42)\n"
        "def _mixed(draw, doc):\n"
        "    options = [*doc['options']]\n    draw.shuffle(options)\n"
        "    return {'options': options, 'gold': options.index(doc['options'][0])}\n"
        "def order(docs):\n    return docs.map(lambda doc: _mixed(random, doc))\n"
        "def own_order(docs):\n    return docs.map(lambda doc: _mixed(OWN, doc))\n"
    )
    text = (folder / "tasks" / "own_choice.yaml").read_text()
    for name in ("order", "own_order"):
        own = text.replace("task: own_choice\n", f"task: {name}\n")
        own += f"process_docs: !function code.{name}\n"
        (tmp_path / "tasks" / f"{name}.yaml").write_text(own)
    return tmp_path


def test_what_a_task_draws_is_that_of_simple_evaluate_whatever_was_drawn_before(
    shuffled: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    random.seed(99)
    spec = TaskSpec(include=str(shuffled / "tasks"), name="order")
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    found = reference(model, tokenizer, shuffled, "order")
    assert_same(outcome, found, "order")
    targets = {sample["doc_id"]: sample["target"] for sample in found["samples"]["order"]}
    assert list(outcome.items["gold"]) == [int(targets[one]) for one in sorted(targets)]


def test_what_a_task_draws_does_not_depend_on_the_tasks_before_it(
    folder: Path, shuffled: Path
) -> None:
    files = tuple(
        LocalFile(task="own_order", split=split, path=f"{folder}/{split}.jsonl")
        for split in ("test", "train")
    )
    texts = []
    for limit in (4, 5):
        spec = TaskSpec(include=str(shuffled / "tasks"), name="own_order", files=files, limit=limit)
        loaded = load_benchmark(spec, None)
        loaded.build_requests()
        texts.append([one.args for one in loaded.tasks["own_order"].instances][:12])
    assert texts[0] == texts[1]


def test_a_metric_whose_items_count_to_a_hundred_is_no_share_even_where_its_mean_is_small(
    folder: Path, tmp_path: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "code.py").write_text(
        "def judge(doc, results):\n    return {'f1': 10.0 * (doc['gold'] == 0 and len(results))}\n"
    )
    (tmp_path / "t.yaml").write_text(
        "task: t\ntest_split: test\noutput_type: loglikelihood\ndoc_to_text: '{{question}}'\n"
        "doc_to_target: ' {{gold}}'\nprocess_results: !function code.judge\n"
        "metric_list: [{metric: f1, aggregation: !function code.few, higher_is_better: true}]\n"
    )
    with (tmp_path / "code.py").open("a") as file:
        file.write("def few(items):\n    return sum(items) / 1000\n")
    test = LocalFile(task="t", split="test", path=f"{folder}/test.jsonl")
    spec = TaskSpec(include=str(tmp_path), name="t", files=(test,))
    (score,) = evaluate(model, tokenizer, spec, data_root=None, precision="fp32").scores
    assert 0 < score.value < 1
    assert score.unit == "f1"
