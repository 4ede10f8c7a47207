"""The law: log-likelihoods of general text are those of lm-eval, whatever file holds it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

from harness.errors import ZbenchError
from harness.evaluation import evaluate
from harness.evaluation.data_files import read_rows
from harness.evaluation.task_data import check_items, local_files
from harness.evaluation.task_files import folder_of
from harness.evaluation.task_index import FORGETTING as TITLES
from harness.evaluation.task_index import SHIPPED
from harness.evaluation.tasks import LocalFile, TaskSpec, request_key

FORGETTING = "forgetting"
FOLDER = folder_of(SHIPPED)
TEXT = FOLDER / "general_text.jsonl"


def spec_of(path: Path, **settings: Any) -> TaskSpec:
    file = LocalFile(task=FORGETTING, split="test", path=str(path))
    return TaskSpec(name=FORGETTING, files=(file,), **settings)


def test_the_text_that_ships_is_prose_on_many_subjects() -> None:
    rows = read_rows(TEXT).to_pylist()
    texts = [row["text"] for row in rows]
    assert len({row["subject"] for row in rows}) == len(set(texts)) == 40
    assert 20_000 < sum(map(len, texts)) < 40_000
    assert all(text == text.strip() and text.endswith(".") for text in texts)


@pytest.mark.parametrize("limit", [None, 3])
def test_scores_are_those_of_simple_evaluate(
    limit: int | None,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    # Plain lm-eval looks for the file where it is run.
    yaml = (FOLDER / "forgetting.yaml").read_text().replace("general_text.jsonl", str(TEXT))
    (tmp_path / "forgetting.yaml").write_text(yaml)
    # With the tokenizer's own BOS lm-eval would begin each text with two of them.
    assert tokenizer("river").input_ids[0] == tokenizer.bos_token_id
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, add_bos_token=False),
        tasks=[FORGETTING],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        limit=limit,
    )
    tokenizer.pad_token = None
    assert found is not None
    outcome = evaluate(
        model, tokenizer, TaskSpec(name=FORGETTING, limit=limit), data_root=None, precision="fp32"
    )
    values = {score.metric: score.value for score in outcome.scores}
    assert list(values) == ["bits_per_byte", "byte_perplexity", "word_perplexity"]
    for metric, value in values.items():
        expected = found["results"][FORGETTING][f"{metric},none"]
        assert value == pytest.approx(expected, rel=1e-5)
    assert len(outcome.items) == (40 if limit is None else limit)
    # By the definition: minus the log-likelihood of all documents over all their bytes.
    bits = -outcome.items["loglikelihood"].sum() / outcome.items["num_bytes"].sum() / math.log(2)
    assert values["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert {score.data_source for score in outcome.scores} == {"tasks/general_text.jsonl"}


def test_any_file_of_texts_takes_the_place_of_the_one_that_ships(
    model: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    texts = ["river stone, cloud", "apple lamp seven. Quick fox."]
    plain, rows = tmp_path / "mine.txt", tmp_path / "mine.jsonl"
    plain.write_text("\n\n".join(texts) + "\n")
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    first, second = (
        evaluate(model, tokenizer, spec_of(path), data_root=None, precision="fp32")
        for path in (plain, rows)
    )
    assert list(first.items["loglikelihood"]) == list(second.items["loglikelihood"])
    assert first.scores[0].content_sha256 == second.scores[0].content_sha256
    (tmp_path / FORGETTING).mkdir()
    under_root = tmp_path / FORGETTING / "test.jsonl"
    under_root.write_text(rows.read_text())
    assert local_files(TaskSpec(name=FORGETTING), tmp_path) == {"test": under_root}


def test_the_demos_text_is_read_from_beside_its_yaml(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = TaskSpec(name="demo_forgetting", limit=2)
    assert spec.benchmark.title == TITLES["demo_forgetting"]
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    assert {score.data_source for score in outcome.scores} == {"tasks/demo_text.jsonl"}
    assert len(outcome.items) == 2


def test_a_text_file_is_documents_with_blank_lines_between_unless_it_is_a_table(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One, two,\nthree.\n \t\nFour; five.\n\n\n")
    assert read_rows(path).to_pylist() == [{"text": "One, two,\nthree."}, {"text": "Four; five."}]
    path.write_text("id,text\n1,abc\n2,def\n")
    assert read_rows(path).to_pylist() == [{"id": 1, "text": "abc"}, {"id": 2, "text": "def"}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"apply_chat_template": True}, "is of plain text: remove 'apply_chat_template'"),
        ({"system_instruction": "Answer."}, "is of plain text"),
        ({"shots": 2}, "takes no few-shot examples"),
        ({"temperature": 1.0}, "generates nothing"),
    ],
)
def test_what_makes_no_sense_for_plain_text_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TaskSpec(name=FORGETTING, **settings)


def test_a_misspelt_name_is_told_the_right_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'forgetting'"):
        TaskSpec(name="forgeting")


def test_a_file_without_texts_is_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    wrong, empty = tmp_path / "wrong.jsonl", tmp_path / "empty.txt"
    wrong.write_text('{"page": "a"}\n{"page": "b"}\n')
    empty.write_text("")
    for path, said in (
        (wrong, "has no column 'text', which forgetting reads"),
        (empty, "empty.txt: is empty"),
        (tmp_path / "gone.txt", "gone.txt: no such file"),
    ):
        with pytest.raises(ZbenchError, match=said) as found:
            check_items(spec_of(path), None)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("second", ["", "  ", None])
def test_a_row_without_a_text_is_named(second: str | None, tmp_path: Path) -> None:
    path = tmp_path / "holes.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a b", second)))
    with pytest.raises(ZbenchError, match=r"row 1 \(the first is 0\) has no text in 'text'"):
        check_items(spec_of(path), None)


def test_items_hold_the_bytes_that_a_tasks_own_code_divides_by(
    model: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "pages.jsonl"
    pages = [" = River = \n The river 's stone , 3 @,@ 000 @-@ year @.@ \n", " apple ( lamp ) \n"]
    path.write_text("".join(json.dumps({"page": page}) + "\n" for page in pages))
    file = LocalFile(task="wikitext", split="test", path=str(path))
    spec = TaskSpec(name="wikitext", files=(file,))
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    assert list(outcome.items["num_bytes"]) == [len(page.encode()) for page in pages]
    bits = -outcome.items["loglikelihood"].sum() / outcome.items["num_bytes"].sum() / math.log(2)
    values = {score.metric: score.value for score in outcome.scores}
    assert values["bits_per_byte"] == pytest.approx(bits, rel=1e-6)


def test_its_request_is_the_same_with_and_without_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "task: t\ntest_split: test\ndataset_path: json\noutput_type: loglikelihood_rolling\n"
        "doc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    )
    own = TaskSpec(name=FORGETTING, include=str(tmp_path))
    assert request_key(own) == request_key(TaskSpec(name=FORGETTING))
