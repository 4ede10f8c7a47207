"""ScienceQA's benchmarks from rows to records, with a model that takes pictures and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet
import pytest

from harness.data.scienceqa import scienceqa_prompt
from harness.errors import DataError
from harness.evaluation import evaluate
from harness.evaluation.loading import load_benchmark
from harness.evaluation.scienceqa import documents
from harness.evaluation.scores import TaskOutcome, prompts_sha256
from harness.evaluation.task_data import check_items
from harness.evaluation.tasks import LocalFile, TaskSpec
from harness.models.pictures import PictureFeatures
from harness.readers.pictures import Picture
from tests.evaluation.conftest import png, write_rows
from tests.evaluation.test_pictures import encode, looking
from tests.fixtures.real_data import DATA_ROOT

LOST = "2 of 12 items have a picture that the data lack; they were scored without it"
ROW = {"question": "Which?", "choices": ["red", "blue"], "answer": 1, "hint": " "}


def score(name: str, model: Any, tokenizer: Any, root: Path, **settings: Any) -> TaskOutcome:
    return evaluate(
        model, tokenizer, TaskSpec(name=name), data_root=root, precision="fp32", **settings
    )


def rows_of(root: Path) -> list[dict[str, Any]]:
    found = pyarrow.parquet.read_table(root / "scienceqa" / "test.parquet").to_pylist()
    return [dict(row) for row in found]


def test_what_is_asked_and_compared() -> None:
    assert documents.prompt(ROW) == scienceqa_prompt("Which?", "", ["red", "blue"])
    assert documents.prompt_before_letter(ROW).endswith(
        "Options: (A) red (B) blue\nAnswer: The answer is"
    )
    assert documents.letters(ROW) == ["A", "B"]
    assert documents.response(ROW) == " The answer is B."


def test_item_columns_tell_what_the_row_tells() -> None:
    assert documents.item_columns(ROW, None) == {
        "subject": None,
        "grade": None,
        "has_text": False,
        "has_image": False,
        "num_options": 2,
    }
    told = ROW | {
        "subject": "social science",
        "grade": "grade2",
        "hint": "Look.",
        "has_image": True,
    }
    assert documents.item_columns(told, None) == {
        "subject": "social science",
        "grade": "grade2",
        "has_text": True,
        "has_image": True,
        "num_options": 2,
    }
    assert documents.item_columns(ROW, "abc")["has_image"]


@pytest.mark.parametrize("name", ["scienceqa", "paper_scienceqa"])
def test_pictures_change_scores_and_the_records_tell_of_them(
    name: str, tokenizer: Any, shared_root: Path
) -> None:
    model, calls = looking("llama", "zero-init-linear"), []

    def counting(pictures: Sequence[Picture]) -> PictureFeatures:
        calls.append(len(pictures))
        return encode(pictures)

    with_them = score(name, model, tokenizer, shared_root, encode_pictures=counting)
    without = score(name, model, tokenizer, shared_root)
    assert calls == [4]
    assert with_them.batching.fallback is None
    assert with_them.warnings == (LOST,)
    unseen = "4 of 12 items have a picture that the model was not shown: it has no image encoder"
    assert without.warnings == (unseen, LOST)
    assert all(unseen in str(one.note) for one in without.scores)
    items, others = with_them.items, without.items
    rows = rows_of(shared_root)
    pictures = [row["image"] and Picture.of(row["image"]["bytes"]).sha256 for row in rows]
    assert [one if isinstance(one, str) else None for one in items["picture"]] == pictures
    assert items["question_id"].tolist() == [row["pid"] for row in rows]
    assert items["has_image"].tolist() == [row["has_image"] for row in rows]
    assert items["has_text"].tolist() == [bool(row["hint"]) for row in rows]
    assert items["num_options"].tolist() == [len(row["choices"]) for row in rows]
    assert items["grade"].isna().tolist() == [row["grade"] is None for row in rows]
    answer = "response" if name.startswith("paper") else "choices_loglikelihoods"
    changed = [a != b for a, b in zip(items[answer], others[answer], strict=True)]
    assert not any(value for value, one in zip(changed, pictures, strict=True) if one is None)
    if answer != "response":  # a few greedy tokens may be the same
        assert all(value for value, one in zip(changed, pictures, strict=True) if one is not None)


def test_generated_answers_are_judged_by_the_official_pattern(
    tokenizer: Any, shared_root: Path
) -> None:
    outcome = score("paper_scienceqa", looking("llama", "random-init"), tokenizer, shared_root)
    (whole,) = outcome.scores
    assert (whole.protocol, whole.temperature, whole.n) == ("scienceqa", 0.0, 12)
    assert whole.response_flags == {"not_extracted": 12}  # it speaks no English
    assert whole.value == 0.0
    assert outcome.items["not_extracted"].all()
    assert outcome.items["prediction"].isna().all()


def test_log_likelihoods_are_of_the_letters_alone(
    model: Any, tokenizer: Any, shared_root: Path
) -> None:
    outcome = score("scienceqa", model, tokenizer, shared_root)
    assert [len(row) for row in outcome.items["choices_loglikelihoods"]] == [2, 3, 4] * 4
    assert set(outcome.items["choice_lengths"].explode()) == {1}
    (whole,) = outcome.scores
    assert (whole.metric, whole.protocol) == ("acc", "lm-eval")
    assert whole.value == pytest.approx(outcome.items["acc"].mean())


def identities(root: Path) -> tuple[str, str]:
    loaded = load_benchmark(TaskSpec(name="scienceqa"), root)
    loaded.build_requests()
    return loaded.content_sha256, prompts_sha256(loaded)


def test_items_are_others_with_other_pictures(shared_root: Path, tmp_path: Path) -> None:
    rows = rows_of(shared_root)
    known = identities(shared_root)
    write_rows(tmp_path / "a" / "scienceqa" / "test.parquet", rows)
    assert identities(tmp_path / "a") == known
    rows[1]["image"]["bytes"] = png("yellow")
    write_rows(tmp_path / "b" / "scienceqa" / "test.parquet", rows)
    found = identities(tmp_path / "b")
    assert found[0] != known[0]
    assert found[1] != known[1]


def test_rows_without_ids_are_told_apart_by_their_pictures(
    tmp_path: Path, model: Any, tokenizer: Any
) -> None:
    rows = [ROW | {"image": {"bytes": png(colour), "path": None}} for colour in ("red", "blue")]
    write_rows(tmp_path / "scienceqa" / "test.parquet", rows)
    items = score("scienceqa", model, tokenizer, tmp_path).items
    assert items["question_id"].nunique() == 2
    assert items["has_image"].tolist() == [True, True]


def test_text_alone_is_a_fallback_that_the_scores_tell_of(
    tmp_path: Path, model: Any, tokenizer: Any
) -> None:
    rows = [ROW | {"pid": "7", "has_image": True}, ROW | {"pid": "9", "has_image": False}]
    write_rows(tmp_path / "scienceqa" / "test_text.parquet", rows)
    outcome = score("scienceqa", model, tokenizer, tmp_path)
    note = str(outcome.scores[0].note)
    assert "test_text.parquet, which has no pictures" in note
    assert "1 of 2 items have a picture that the data lack" in note
    assert outcome.items["picture"].isna().all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": {"bytes": b"", "path": ""}}, "row 1 .*column image: the picture has zero bytes"),
        (
            {"image": {"bytes": b"none", "path": ""}},
            "row 1 .*column image: its bytes are no picture",
        ),
        ({"answer": 2}, "row 1 .*answer: 2 is no number from 0 to 1"),
        ({"hint": None}, "row 1 .*column hint: is empty"),
    ],
)
def test_broken_rows_are_named_before_a_model_is_loaded(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    good = ROW | {"image": {"bytes": png("red"), "path": "a.png"}}
    write_rows(tmp_path / "scienceqa" / "test.parquet", [good, good | change])
    with pytest.raises(DataError, match=said):
        check_items(TaskSpec(name="scienceqa"), tmp_path)


def test_real_pictures(tokenizer: Any) -> None:
    file = Path(DATA_ROOT or "") / "scienceqa" / "test_pictures_240.parquet"
    if DATA_ROOT is None or not file.is_file():
        pytest.skip("needs ScienceQA's pictures: set ZBENCH_DATA_ROOT")
    named = LocalFile(task="scienceqa", split="test", path=str(file))
    task = TaskSpec(name="scienceqa", files=(named,), limit=30)
    check_items(task, Path(DATA_ROOT))
    outcome = evaluate(
        looking("llama", "zero-init-linear"), tokenizer, task, data_root=Path(DATA_ROOT),
        precision="fp32", encode_pictures=encode,
    )  # fmt: skip
    assert outcome.warnings == ()
    assert outcome.items["picture"].notna().all()
    assert outcome.items["subject"].isna().sum() > 0
    assert isinstance(outcome.items, pandas.DataFrame)
