"""The forms of rows, told from their columns; what is bad of a row; which rows are selected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.data.rows import Completion, Conversation, Instruction, Row, Text, Turn
from harness.data.sets import Instructions, content_of, inspect_data, read_instructions
from harness.data.spec import DataSpec
from harness.errors import ZbenchError

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
TURNS = (Turn("user", "q"), Turn("assistant", "a"))
SYSTEM = Turn("system", "s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def read(path: Path, rows: Sequence[Mapping[str, Any]], **settings: object) -> Instructions:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_instructions(
        DataSpec.model_validate({"path": str(path), **settings}), data_root=None
    )


def fault_of(path: Path, rows: Sequence[Mapping[str, Any]], **settings: object) -> str:
    with pytest.raises(ZbenchError) as told:
        read(path, rows, **settings)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"instruction": "i", "input": "n", "output": "o"}, Instruction("i", "n", "o")),
        ({"instruction": "i", "output": "o", "text": "all"}, Instruction("i", "", "o")),
        ({"prompt": "p", "completion": "c", "id": 3}, Completion("p", "c")),
        ({"prompt": [USER], "completion": [BOT]}, Conversation(TURNS)),
        ({"messages": [USER, BOT], "prompt": "q"}, Conversation(TURNS)),
        ({"conversations": [HUMAN, GPT]}, Conversation(TURNS)),
        ({"conversations": [HUMAN, GPT] * 2, "system": "s"},
         Conversation((SYSTEM, *TURNS, *TURNS))),
        ({"messages": [{"role": "developer", "content": "s"}, USER, BOT]},
         Conversation((SYSTEM, *TURNS))),
        ({"messages": [USER | {"content": [{"type": "text", "text": "q"}]}, BOT | {"weight": 1}],
          "tools": []}, Conversation(TURNS)),
        ({"text": "t", "url": "u"}, Text("t")),
    ],
)  # fmt: skip
def test_the_columns_tell_the_form(path: Path, record: dict[str, Any], row: Row) -> None:
    data = read(path, [record] * 2)
    assert data.rows == (row, row)
    assert content_of(DataSpec(path=str(path)), None) == data.identity["sha256"]


@pytest.mark.parametrize(
    ("record", "columns", "row"),
    [
        ({"question": "i", "answer": "o", "input": "n"},
         {"instruction": "question", "output": "answer"}, Instruction("i", "n", "o")),
        ({"instruction": "i", "answer": "o"}, {"output": "answer"}, Instruction("i", "", "o")),
        ({"input": "i", "output": "o"}, {"instruction": "input"}, Instruction("i", "", "o")),
        ({"dialog": [HUMAN, GPT]}, {"messages": "dialog"}, Conversation(TURNS)),
        ({"q": "p", "a": "c"}, {"prompt": "q", "completion": "a"}, Completion("p", "c")),
        ({"instruction": "i", "output": "o", "body": "t"}, {"text": "body"}, Text("t")),
        ({"instruction": "i", "chosen": "o", "rejected": "r"}, {"output": "chosen"},
         Instruction("i", "", "o")),
    ],
)  # fmt: skip
def test_columns_of_other_names_are_mapped(
    path: Path, record: dict[str, Any], columns: dict[str, str], row: Row
) -> None:
    assert read(path, [record], columns=columns).rows == (row,)


@pytest.mark.parametrize(
    ("record", "settings", "said"),
    [
        ({"question": "q", "answer": "a"}, {},
         "has no columns of a training row (it has question, answer); `columns: {instruction: "
         "question, output: answer}` would do, if these are meant"),
        ({"instruction": "q", "response": "a"}, {}, "`columns: {output: response}` would do"),
        ({"dialogue": [USER, BOT]}, {}, "`columns: {messages: dialogue}` would do"),
        ({"a": "b"}, {}, "no columns of a training row (it has a); zbench trains on instruction"),
        ({"question": "q", "answer": "a"}, {"columns": {"instruction": "quesion"}},
         "has no column 'quesion', which `columns` names for instruction; did you mean 'quest"),
        ({"question": "q", "answer": "a"}, {"columns": {"instruction": "question"}},
         "has no column for output (it has question, answer); map it too by `columns`"),
        ({"prompt": "p", "completion": "c"}, {"columns": {"prompt": "completion"}},
         "has no column for completion"),
        ({"prompt": "p", "completion": "c", "messages": [USER, BOT]}, {},
         "its rows have the columns of two forms (completion and messages)"),
        ({"prompt": "p", "completion": "c", "label": True}, {}, "holds preferences"),
        ({"question": "q", "choices": ["a", "b"], "answer": 1}, {},
         "choices belongs to a benchmark's items, which are scored under `tasks`"),
        ({"messages": [USER, BOT], "images": ["a.jpg"]}, {},
         "pictures (column images), which are taken beside instruction/input/output and in Sci"),
    ],
)  # fmt: skip
def test_what_is_no_training_row_says_what_there_is_and_what_would_do(
    path: Path, record: dict[str, Any], settings: dict[str, object], said: str
) -> None:
    assert said in fault_of(path, [record] * 2, **settings)


def test_rows_of_another_form_are_told_by_their_number(path: Path) -> None:
    rows = [{"text": "a"}] * 200 + [{"prompt": "a", "completion": "b"}]
    said = "row 200 (the first is 0) has the columns prompt, completion, the rows before it text"
    assert said in fault_of(path, rows)
    assert "of two forms (instruction and completion)" in fault_of(
        path, [{"instruction": "a", "output": "b"}, {"prompt": "a", "completion": "b"}]
    )


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "messages has no turns"),
        ("hello", "messages is no list of turns"),
        (None, "messages is null"),
        (["hello"], "turn 0 is no object with role and content"),
        ([USER], "its last turn is not the assistant's: nothing would be learned from it"),
        ([BOT, USER], "turn 0 is the assistant's, where the user's is due"),
        ([USER, USER, BOT], "turn 1 is the user's, where the assistant's is due"),
        ([USER, {"role": "system", "content": "s"}], "turn 1 is the system's, where"),
        ([USER, {"role": "narrator", "content": "s"}], "turn 1 has the role 'narrator' (known: "),
        ([USER, {"role": "tool", "content": "1"}, BOT], "turn 1 is a tool call or its answer"),
        ([USER, BOT | {"tool_calls": [{"id": 1}]}], "turn 1 is a tool call or its answer"),
        ([HUMAN, {"from": "function_call", "value": "{}"}], "turn 1 is a tool call or its"),
        ([USER, BOT | {"content": None}], "the content of turn 1 is null"),
        ([USER, BOT | {"content": 7}], "the content of turn 1 is a number (7)"),
        ([USER | {"content": [{"type": "image_url"}]}, BOT], "the content of turn 0 has a part"),
        ([USER, BOT | {"weight": 0}], "turn 1 has weight 0, but the turns of the assistant"),
        ([USER, BOT | {"thinking": "hm"}], "turn 1 has thinking, which would be lost"),
        ([USER | {"content": "\ud800"}, BOT], "the content of turn 0 is no valid Unicode"),
    ],
)  # fmt: skip
def test_a_bad_conversation_says_which_turn(path: Path, turns: object, said: str) -> None:
    good = {"messages": [USER, BOT]}
    assert f"row 1: {said}" in fault_of(path, [good, {"messages": turns}])
    dropped = read(path, [good, {"messages": turns}], on_bad_rows="drop")
    assert (dropped.rows, dropped.report.dropped) == ((Conversation(TURNS),), 1)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"instruction": "i", "output": "o", "history": [["q", "a"]]}, "has history, which a row"),
        ({"instruction": "i", "output": "o", "system": "s"}, "has system, which a row"),
        ({"prompt": "p", "completion": "c", "tools": "[1]"}, "has tools, which a row"),
        ({"messages": [USER, BOT], "tools": [{"name": "f"}]}, "has tools, which a row"),
        ({"messages": [USER, BOT], "history": [["q", "a"]]}, "has history, which a row"),
    ],
)
def test_what_stands_beside_a_row_is_not_lost_in_silence(
    path: Path, record: dict[str, Any], said: str
) -> None:
    without = {**record, list(record)[-1]: None}
    assert f"row 1: {said}" in fault_of(path, [without, record])
    assert f"row 150: {said}" in fault_of(path, [dict(list(record.items())[:-1])] * 150 + [record])
    assert len(read(path, [{**record, list(record)[-1]: ""}] * 2).rows) == 2


def test_a_column_may_begin_after_many_rows(path: Path) -> None:
    row = {"instruction": "i", "output": "o"}
    rows = read(path, [row] * 150 + [row | {"input": "n"}]).rows
    assert rows == (Instruction("i", "", "o"),) * 150 + (Instruction("i", "n", "o"),)


def test_pictures_of_a_late_row_are_told(path: Path) -> None:
    row = {"messages": [USER, BOT]}
    assert "row 150: has images, which a row" in fault_of(
        path, [row] * 150 + [row | {"images": ["a"]}]
    )


def test_two_system_texts_are_not_one(path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "s"}, USER, BOT]}
    assert read(path, [own | {"system": "s"}]).rows == read(path, [own]).rows
    said = "row 0: has a system text, and another one in its first turn"
    assert said in fault_of(path, [own | {"system": "other"}])


def test_a_system_text_beside_lists_of_messages_is_their_first_turn(path: Path) -> None:
    record = {"prompt": [USER], "completion": [BOT], "system": "s"}
    assert read(path, [record]).rows == (Conversation((SYSTEM, *TURNS)),)


def test_a_prompt_with_an_answer_in_it_is_refused(path: Path) -> None:
    said = "its prompt has a turn of the assistant"
    assert said in fault_of(path, [{"prompt": [USER, BOT, USER], "completion": [BOT]}])


BAD: list[dict[str, Any]] = [
    {"instruction": "a", "output": "b"},
    {"instruction": "a", "output": None},
    {"instruction": "a", "output": float("nan")},
    {"instruction": 3, "output": "b"},
    {"instruction": "a"},
    {"instruction": "a", "output": ""},
]


def test_by_default_bad_rows_fail_and_the_first_three_are_named(path: Path) -> None:
    assert fault_of(path, BAD) == (
        "at least 3 rows cannot be trained on (the first is 0): row 1: output is null; row 2: "
        "output is NaN; row 3: instruction is a number (3); correct the file, or say "
        "`on_bad_rows: drop`"
    )
    assert "row 1: has no output" in fault_of(path, [BAD[0], BAD[4]])


def test_by_default_an_empty_response_is_kept_and_counted(path: Path) -> None:
    data = read(path, [BAD[0], BAD[5]])
    assert data.rows == (Instruction("a", "", "b"), Instruction("a", "", ""))
    assert (data.report.rows, data.report.empty, data.report.odd) == (2, 1, {})
    assert str(data.report) == "2 rows (instruction); 1 with an empty response"


def test_bad_rows_are_dropped_kept_or_fail_as_stated(path: Path) -> None:
    dropped = read(path, BAD, on_bad_rows="drop")
    assert dropped.rows == (Instruction("a", "", "b"),)
    assert dropped.report.odd == {"dropped": 5}
    kept = read(path, BAD, on_bad_rows="keep")
    assert [vars(row)["output"] for row in kept.rows] == ["b", "", "", "b", "", ""]
    assert vars(kept.rows[3])["instruction"] == "3"
    assert (kept.report.odd, kept.report.empty) == ({"filled": 4}, 4)
    assert "row 1: has an empty response" in fault_of(path, [BAD[0], BAD[5]], on_bad_rows="fail")


def test_cells_of_a_table_are_bad_in_the_same_way(tmp_path: Path) -> None:
    frame = pd.DataFrame({"instruction": ["a"] * 3, "output": [1.5, None, float("nan")]})
    frame.to_parquet(tmp_path / "rows")
    spec = DataSpec(path=str(tmp_path / "rows"))
    with pytest.raises(ZbenchError, match=r"row 0: output is a number \(1\.5\); row 1: output is "):
        inspect_data(spec, None)


def rows_of_sizes(*sizes: int) -> list[dict[str, Any]]:
    return [{"instruction": "i" * 10, "output": "o" * size, "score": size} for size in sizes]


def test_rows_are_selected_by_their_length(path: Path) -> None:
    data = read(path, rows_of_sizes(1, 90, 91), where={"max_characters": 100})
    assert [len(vars(row)["output"]) for row in data.rows] == [1, 90]
    assert data.report.odd == {"left_out": 1}


@pytest.mark.parametrize(
    "where", ["output|length < 50", "{{ output|length < 50 }}", "score in [1, 7] and not score > 7"]
)
def test_rows_are_selected_by_a_condition_over_their_columns(path: Path, where: str) -> None:
    data = read(path, rows_of_sizes(1, 99, 7), where=where)
    assert [len(vars(row)["output"]) for row in data.rows] == [1, 7]
    assert str(data.report) == "2 rows (instruction); 1 left out by `where`"


def test_a_condition_reads_other_columns_of_a_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(rows_of_sizes(1, 99, 7)).assign(day=pd.Timestamp("2026-01-01"))
    frame.to_parquet(tmp_path / "rows")
    spec = DataSpec(path=str(tmp_path / "rows"), where="score == 99")
    assert len(read_instructions(spec, data_root=None).rows) == 1


def test_a_condition_over_a_column_that_a_table_has_not_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("instruction,output\na,b\n")
    spec = DataSpec(path=str(tmp_path / "rows"), where="ouput|length > 3")
    with pytest.raises(ZbenchError, match=r"no column 'ouput', which `where` .* mean 'output'\?"):
        inspect_data(spec, None)


def test_a_condition_over_what_is_no_text_says_what_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a"], "when": pd.to_datetime(["2024-07-26"])})
    frame.to_parquet(tmp_path / "rows")
    spec = DataSpec(path=str(tmp_path / "rows"), where="when.year == 1970")
    with pytest.raises(ZbenchError, match=r"`where` names when, a column of timestamp"):
        inspect_data(spec, None)


def test_what_a_condition_leaves_out_may_be_bad(path: Path) -> None:
    assert len(read(path, BAD, where="output is string and instruction is string").rows) == 2


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("output|length < size", "row 0 (the first is 0): the condition `output|length < size` fail"
         "s ('size' is undefined)"),
        ("output < 3", "row 0 (the first is 0): the condition `output < 3` fails ('<' not"),
        ("output|length", "row 0 (the first is 0): the condition `output|length` gives 1, neither"),
        ("output.__class__.mro()", "fails (access to attribute '__class__' of 'str'"),
        ("output == 'x'", "has no rows that are left (2 left out by `where`)"),
    ],
)  # fmt: skip
def test_a_condition_that_fails_says_on_which_row(path: Path, where: str, said: str) -> None:
    assert said in fault_of(path, rows_of_sizes(1, 2), where=where)
