"""The data of any task: local files of any form, and what is wrong with them, told beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from harness.errors import DataError, EvaluationError, ZbenchError
from harness.evaluation import evaluate
from harness.evaluation.loading import load_benchmark
from harness.evaluation.task_data import check_items, local_files
from harness.evaluation.tasks import LocalFile, TaskSpec, request_key
from tests.fixtures.hub_study import fill_hub
from tests.fixtures.own_tasks import COMMON, TASKS, rows


def test_the_same_rows_in_any_form_are_the_same_items(
    folder: Path, tmp_path: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "tasks").mkdir()
    text = TASKS["own_text"]
    (tmp_path / "tasks" / "t.yaml").write_text(f"task: t\ntest_split: test\n{text}")
    plain = [{"page": row["page"]} for row in rows(4, 3)]
    frame = pandas.DataFrame(plain)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.json").write_text(json.dumps(plain))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, plain)))
    found = []
    for form in ("parquet", "csv", "json", "jsonl"):
        file = LocalFile(task="t", split="test", path=str(tmp_path / f"a.{form}"))
        spec = TaskSpec(include=str(tmp_path / "tasks"), name="t", files=(file,))
        (first, *_) = evaluate(model, tokenizer, spec, data_root=None, precision="fp32").scores
        found.append((first.value, first.content_sha256, first.key))
    assert len(set(found)) == 1


def test_files_under_the_data_root_are_found_by_task_and_split(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "own_word").mkdir()
    (tmp_path / "own_word" / "test.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    spec = TaskSpec(include=str(folder / "tasks"), name="own_word")
    assert local_files(spec, tmp_path) == {"test": tmp_path / "own_word" / "test.jsonl"}
    assert local_files(spec, folder) == {}


def without(folder: Path, path: Path, column: str) -> None:
    kept = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for row in kept:
        del row[column]
    path.write_text("\n".join(map(json.dumps, kept)))


def test_what_is_wrong_with_the_data_is_told_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(name: str, **splits: object) -> str:
        files = tuple(LocalFile(task=name, split=s, path=str(p)) for s, p in splits.items())
        spec = TaskSpec(include=str(folder / "tasks"), name=name, files=files)
        with pytest.raises(ZbenchError) as caught:
            check_items(spec, None)
        return str(caught.value)

    test, train = folder / "test.jsonl", tmp_path / "one.jsonl"
    assert "names no file of the split 'train'" in told("own_choice", test=test)
    assert "no such file" in told("own_word", test=tmp_path / "absent")
    train.write_text(test.read_text().splitlines()[0])
    said = told("own_choice", test=test, train=train)
    assert "has 1 rows, and 2 examples of own_choice are asked for" in said
    without(folder, train, "options")
    assert "has no column 'options', which own_word reads" in told("own_word", test=train)
    train.write_text("not rows at all")
    assert "is text, no file of rows (parquet, JSON" in told("own_word", test=train)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"gsm8k: its data \(openai/gsm8k\) are not on this machi"):
        check_items(TaskSpec(name="gsm8k"), None)


def test_a_row_that_a_template_fails_on_is_named(folder: Path, tmp_path: Path) -> None:
    kept = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    kept[3]["options"] = []
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, kept)))
    file = LocalFile(task="own_word", split="test", path=str(path))
    spec = TaskSpec(include=str(folder / "tasks"), name="own_word", files=(file,))
    with pytest.raises(EvaluationError, match=r"own_word: lm-eval cannot make prompts.*row 3, the"):
        load_benchmark(spec, None).build_requests()


def test_a_filter_that_finds_nothing_is_told(
    folder: Path, tmp_path: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "tasks").mkdir()
    text = TASKS["own_answer"].replace('"(\\\\w+)"', '"#### ([0-9]+)"')
    (tmp_path / "tasks" / "t.yaml").write_text(f"task: t\n{COMMON}{text}")
    files = tuple(
        LocalFile(task="t", split=split, path=f"{folder}/{split}.jsonl")
        for split in ("test", "train")
    )
    spec = TaskSpec(include=str(tmp_path / "tasks"), name="t", files=files, limit=3)
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    assert outcome.warnings == ("the filter 'first-word' finds no answer in any of 3 responses",)
    assert outcome.warnings[0] in str(outcome.scores[0].note)


def test_a_changed_yaml_is_another_request(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(f"task: t\n{COMMON}{TASKS['own_word']}")
    before = request_key(TaskSpec(include=str(tmp_path), name="t"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "t.yaml").write_text(f"task: t\n{COMMON}{TASKS['own_word']}description: x\n")
    assert request_key(TaskSpec(include=str(other), name="t")) != before


def test_rows_of_the_hub_and_the_same_rows_in_files_are_the_same_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = [{"question": f"{n} + 1?", "answer": f"so\n#### {n + 1}"} for n in range(8)]
    splits = {"train": sums, "test": sums[:3]}
    asked = []

    def load(path: str, name: str, **_settings: Any) -> dict[str, Dataset]:
        asked.append((path, name))
        return {split: Dataset.from_list(own) for split, own in splits.items()}

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load)
    for split, own in splits.items():
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, own)))
    files = tuple(
        LocalFile(task="gsm8k", split=split, path=f"{tmp_path}/{split}.jsonl") for split in splits
    )
    hub = load_benchmark(TaskSpec(name="gsm8k"), None)
    local = load_benchmark(TaskSpec(name="gsm8k", files=files), None)
    assert asked == [("openai/gsm8k", "main")]
    assert hub.content_sha256 == local.content_sha256
    assert hub.data_source == "openai/gsm8k@main"
    assert hub.data_sha256 is not None
    texts = []
    for loaded in (hub, local):
        assert loaded.build_requests() == 3
        texts.append([request.args[0] for request in loaded.tasks["gsm8k"].instances])
    assert texts[0] == texts[1]
    assert texts[0][0].count("Question:") == 6


def test_without_network_rows_come_from_the_hubs_cache_with_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = fill_hub(tmp_path / "served") / "datasets" / "allenai" / "ai2_arc"
    cached = tmp_path / "hub" / "datasets--allenai--ai2_arc"
    shutil.copytree(served, cached / "snapshots" / "c0ffee")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c0ffee")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "built")
    loaded = load_benchmark(TaskSpec(name="arc_easy", limit=3), None)
    assert loaded.data_source == "allenai/ai2_arc@c0ffee"
    assert loaded.build_requests() == 12
    assert len(loaded.tasks["arc_easy"].eval_docs) == 8


def test_data_made_by_code_need_files_of_ones_own() -> None:
    with pytest.raises(DataError, match="made by a function of its own"):
        check_items(TaskSpec(name="niah_single_1"), None)


def test_a_benchmark_with_an_entry_reads_local_data_of_any_form(
    shared_root: Path, tmp_path: Path
) -> None:
    table = pandas.read_parquet(shared_root / "arc_easy" / "test.parquet")
    table["choices"] = [
        {key: list(value) for key, value in choices.items()} for choices in table["choices"]
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, table.to_dict("records"))))
    spec = TaskSpec(
        name="arc_easy", files=(LocalFile(task="arc_easy", split="test", path=str(path)),)
    )
    check_items(spec, None)
    named, known = (
        load_benchmark(spec, None),
        load_benchmark(TaskSpec(name="arc_easy"), shared_root),
    )
    assert named.content_sha256 == known.content_sha256
    assert named.build_requests() == known.build_requests()
    with pytest.raises(DataError, match="names no file of the split 'train'"):
        check_items(spec.model_copy(update={"shots": 2}), None)


def test_a_task_that_names_no_data_set_needs_files_of_the_splits_that_it_reads(
    folder: Path, tmp_path: Path
) -> None:
    text = TASKS["own_text"]
    (tmp_path / "t.yaml").write_text(f"task: t\ntest_split: test\n{text}")
    spec = TaskSpec(include=str(tmp_path), name="t")
    with pytest.raises(DataError, match="t: its YAML names no data set .*: give local_data"):
        check_items(spec, None)
    named = LocalFile(task="t", split="train", path=f"{folder}/test.jsonl")
    with pytest.raises(DataError, match=r"of the split 'test', which t reads \(it names train\)"):
        check_items(spec.model_copy(update={"files": (named,)}), None)


def test_a_metric_that_is_no_number_is_told(
    folder: Path, tmp_path: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "code.py").write_text(
        "def judge(doc, results):\n    return {'acc': float('nan')}\n"
        "def fail(doc, results):\n    return {'acc': results[7]}\n"
    )
    file = LocalFile(task="t", split="test", path=f"{folder}/test.jsonl")
    said = {"judge": "t: its acc is no number", "fail": "t: its filters or metrics fail on these"}
    for function, line in said.items():
        own = tmp_path / function
        own.mkdir()
        (own / "code.py").write_bytes((tmp_path / "code.py").read_bytes())
        (own / "t.yaml").write_text(
            "task: t\ntest_split: test\noutput_type: loglikelihood\ndoc_to_text: '{{question}}'\n"
            f"doc_to_target: '{{{{page}}}}'\nprocess_results: !function code.{function}\n"
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        )
        spec = TaskSpec(include=str(own), name="t", files=(file,), limit=2)
        with pytest.raises(EvaluationError, match=line):
            evaluate(model, tokenizer, spec, data_root=None, precision="fp32")


def test_a_file_that_a_tasks_own_yaml_names_and_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        f"task: t\ndataset_path: json\ndataset_kwargs: {{data_files: {tmp_path}/no.jsonl}}\n"
        "test_split: test\noutput_type: loglikelihood\ndoc_to_text: a\ndoc_to_target: b\n"
    )
    with pytest.raises(DataError, match=r"no.jsonl: no such file; the YAML of t takes its rows"):
        check_items(TaskSpec(include=str(tmp_path), name="t"), None)


def test_a_right_choice_may_be_a_number_of_numpy(
    folder: Path, tmp_path: Path, model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "code.py").write_text(
        "import numpy\ndef gold(doc):\n    return numpy.int32(doc['gold'])\n"
    )
    (tmp_path / "t.yaml").write_text(
        "task: t\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{options}}'\ndoc_to_target: !function code.gold\n"
    )
    file = LocalFile(task="t", split="test", path=f"{folder}/test.jsonl")
    spec = TaskSpec(include=str(tmp_path), name="t", files=(file,))
    outcome = evaluate(model, tokenizer, spec, data_root=None, precision="fp32")
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert list(outcome.items["gold"]) == [row["gold"] for row in rows]
