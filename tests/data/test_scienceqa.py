"""ScienceQA: rows told by their columns, and the official template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from harness.data.instructions import label_runs, tokenize
from harness.data.rows import Instruction, ScienceQuestion
from harness.data.scienceqa import prompt_and_answer, scienceqa_prompt, scienceqa_response
from harness.data.sets import Instructions, inspect_data, read_instructions
from harness.data.shown import training_prompt
from harness.data.spec import DataSpec
from harness.demo.world import CHECKPOINT
from harness.errors import DataError, ZbenchError
from harness.spec import Fault
from tests.fixtures.chat_models import chat_tokenizer
from tests.fixtures.real_data import DATA_ROOT

RECORD: dict[str, Any] = {
    "pid": "1", "question": "Which is farthest north?", "choices": ["Maine", "Ohio", "Utah"],
    "answer": 1, "hint": "", "image": None, "task": "closed choice", "grade": "grade2",
    "subject": "social science", "lecture": "Maps have\ntwo directions.", "solution": "Look  up.",
}  # fmt: skip
ROW = ScienceQuestion(
    "Which is farthest north?", ("Maine", "Ohio", "Utah"), 1,
    lecture="Maps have\ntwo directions.", solution="Look  up.",
)  # fmt: skip
PROMPT = (
    "Question: Which is farthest north?\nContext: N/A\n"
    "Options: (A) Maine (B) Ohio (C) Utah\nAnswer:"
)


def read(folder: Path, *records: dict[str, Any], **settings: Any) -> Instructions:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_instructions(DataSpec(path=str(path), **settings), data_root=None)


def test_rows_are_told_by_their_columns(tmp_path: Path) -> None:
    data = read(tmp_path, RECORD, RECORD | {"lecture": None, "solution": ""})
    assert data.rows[0] == ROW
    assert data.rows[1] == ScienceQuestion(ROW.question, ROW.choices, 1)
    assert data.report.form == "scienceqa"


def test_other_names_are_mapped_and_a_hint_may_be_absent_then(tmp_path: Path) -> None:
    record = {"q": "Which?", "options": ["a", "b"], "label": 0}
    columns = {"question": "q", "choices": "options", "answer": "label"}
    assert read(tmp_path, record, columns=columns).rows == (
        ScienceQuestion("Which?", ("a", "b"), 0),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 3}, "answer is 3, where the number of one of its 3 options is due, from 0"),
        ({"answer": "B"}, 'answer is "B", where the number of'),
        ({"answer": None}, "answer is null, where"),
        ({"choices": ["one"]}, "choices is no list of 2 to 26 options"),
        ({"choices": "a or b"}, "choices is no list of 2 to 26 options"),
        ({"choices": ["a", None]}, "an option of choices is null"),
        ({"question": None}, "question is null"),
        ({"hint": 4}, "hint is a number (4)"),
    ],
)
def test_a_bad_question_is_named_by_its_row(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ZbenchError, match="row 1: ") as told:
        read(tmp_path, RECORD, RECORD | change)
    assert said in str(told.value)
    assert read(tmp_path, RECORD, RECORD | change, on_bad_rows="drop").report.dropped == 1


def test_the_prompt_is_the_official_one() -> None:
    assert prompt_and_answer(ROW) == (PROMPT, " The answer is B.")
    assert scienceqa_prompt("a  b {hint}", " It is {c}. \n", ("x ", "y")) == (
        "Question: a b {hint}\nContext: It is {c}.\nOptions: (A) x (B) y\nAnswer:"
    )
    assert scienceqa_response("C") == " The answer is C."


def test_lecture_and_explanation_follow_the_answer_on_one_line() -> None:
    assert prompt_and_answer(ROW, explained=True) == (
        PROMPT, r" The answer is B. BECAUSE: Maps have\ntwo directions. Look up."
    )  # fmt: skip
    bare = ScienceQuestion("q", ("x", "y"), 0)
    assert prompt_and_answer(bare, explained=True)[1] == " The answer is A. BECAUSE:"


@pytest.mark.parametrize(
    ("template", "learned"),
    [(None, " The answer is B.</s>"), ("scienceqa", " The answer is B.</s>"),
     ("scienceqa-qcm-ale",
      r" The answer is B. BECAUSE: Maps have\ntwo directions. Look up.</s>")],
)  # fmt: skip
def test_the_response_alone_is_in_the_loss(template: str | None, learned: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    (example,) = tokenize([ROW], tokenizer, 512, template=template)
    data = DataSpec(path="rows.jsonl", template=template)
    shown = training_prompt(ROW, example, data, tokenizer)
    assert shown.template == (template or "scienceqa")
    assert "".join(text for text, in_loss in shown.pieces if in_loss) == learned
    (start, end), *others = label_runs(example)
    assert (end, others) == (len(example.token_ids), [])
    assert start == example.num_prompt_tokens


def test_chat_asks_the_same_prompt() -> None:
    tokenizer = chat_tokenizer("chatml")
    (example,) = tokenize([ROW], tokenizer, 512, template="chat")
    text = tokenizer.decode(example.token_ids)
    assert PROMPT in text
    assert "The answer is B." in text


@pytest.mark.parametrize(
    ("row", "template", "said"),
    [
        (ROW, "alpaca", "template alpaca is for rows with an instruction and an output"),
        (Instruction("a", "", "b"), "scienceqa", "template scienceqa is for rows with question"),
        (ROW, "{{ question }}", "the template names question; a row has messages"),
    ],
)
def test_templates_of_other_forms_are_refused(row: Any, template: str, said: str) -> None:
    with pytest.raises(DataError, match="row 0") as told:
        tokenize([row], AutoTokenizer.from_pretrained(CHECKPOINT), 512, template=template)
    assert said in str(told.value)


def test_the_default_template_may_be_stated_and_is_not_in_the_id() -> None:
    plain, stated = DataSpec(path="a"), DataSpec(path="a", template="scienceqa")
    assert stated.stated == plain.stated == {}
    ale = DataSpec(path="a", template="scienceqa-qcm-ale")
    assert ale.stated == {"template": "scienceqa-qcm-ale"}
    with pytest.raises((Fault, ValueError), match="system has no place in template scienceqa"):
        DataSpec(path="a", template="scienceqa", system="Be brief.")


@pytest.mark.skipif(DATA_ROOT is None, reason="ZBENCH_DATA_ROOT is not set: no ScienceQA here")
def test_the_real_rows_are_read_and_have_the_lengths_that_are_known() -> None:
    assert DATA_ROOT is not None
    folder = Path(DATA_ROOT) / "scienceqa"
    pictures = inspect_data(DataSpec(path=str(folder / "test_pictures_240.parquet")), None)
    assert str(pictures.report) == "240 rows (scienceqa); 240 with a picture"
    assert inspect_data(DataSpec(path=str(folder / "test_text.parquet")), None).rows == 4241
    spec = DataSpec(path=str(folder / "train_val_test_sample_text.parquet"), where="split=='train'")
    rows = read_instructions(spec, data_root=None).rows
    tokenizer = AutoTokenizer.from_pretrained(Path(DATA_ROOT) / "llama_tokenizer")
    lengths = [len(example.token_ids) for example in tokenize(rows, tokenizer, 512)]
    assert (len(lengths), max(lengths)) == (1041, 356)
    assert round(sum(lengths) / len(lengths)) == 87
