"""Sets of instructions: every form is read alike, and a row that is none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.answers.instructions import SHIPPED, read_set
from harness.answers.store import Entry
from harness.errors import ZbenchError
from tests.fixtures.real_data import DATA_ROOT


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_vicunas_questions_ship() -> None:
    found = read_set(None, None)
    assert found == read_set("vicuna", None)
    assert (found.name, len(found.entries), found.note) == ("vicuna", 80, "")
    assert found.entries[0] == Entry(
        "1", "How can I improve my time management skills?", "", "generic", "vicuna"
    )
    assert {entry.dataset for entry in found.entries} == {"vicuna"}


@pytest.mark.skipif(DATA_ROOT is None, reason="needs ZBENCH_DATA_ROOT")
def test_what_ships_is_what_was_published() -> None:
    published = Path(str(DATA_ROOT)) / "instructions" / "vicuna_bench_question.jsonl"
    assert published.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.skipif(DATA_ROOT is None, reason="needs ZBENCH_DATA_ROOT")
def test_the_seeds_are_said_to_be_no_test() -> None:
    found = read_set("seeds", Path(str(DATA_ROOT)))
    assert len(found.entries) == 175
    assert sum(bool(entry.input) for entry in found.entries) == 125
    assert "no test" in found.note
    assert found.entries[1].input == "Night : Day :: Right : Left"


@pytest.mark.parametrize("root", [True, False])
def test_seeds_that_are_not_there_are_one_line(tmp_path: Path, root: bool) -> None:
    with pytest.raises(ZbenchError, match="no instructions/alpaca_seed_tasks.*--data-root"):
        read_set("seeds", tmp_path if root else None)


def test_every_format_and_form_gives_the_same_entries(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "instruction": "Add.", "input": "1\n2"},
        {"id": "b", "instruction": "Wh\u00fd?", "input": ""},
    ]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    write(tmp_path / "s.jsonl", *rows)
    pd.DataFrame(rows).to_csv(tmp_path / "s.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "s.parquet")
    sets = [
        read_set(str(tmp_path / f"s.{end}"), None) for end in ("json", "jsonl", "csv", "parquet")
    ]
    assert sets[0].entries == (
        Entry("a", "Add.", "1\n2", "", "s"),
        Entry("b", "Wh\u00fd?", "", "", "s"),
    )
    assert sets[1:] == sets[:1] * 3


def test_vicunas_form_in_parquet_and_its_later_turns(tmp_path: Path) -> None:
    rows = [{"question_id": 81, "category": "w", "turns": ["Write.", "Again."]}]
    pd.DataFrame(rows).to_parquet(tmp_path / "mt.parquet")
    found = read_set(str(tmp_path / "mt.parquet"), None)
    assert found.entries == (Entry("81", "Write.", "", "w", "mt"),)
    assert found.note == "1 of its questions have later turns: the first alone is asked."


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", {"instruction": "a", "dataset": "koala"}, {"instruction": "b"}
    )
    assert read_set(path, None).entries == (
        Entry("0", "a", dataset="koala"),
        Entry("1", "b", dataset="x"),
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"instruction": "a"}, {"instruction": " \n"}], "row 1 .*its instruction is empty"),
        ([{"instruction": "a"}, {"instruction": None}], "row 1 .*its instruction is empty"),
        ([{"instruction": "a"}, {"instruction": 7}], r"row 1 .*`instruction` is no text \(7\)"),
        ([{"instruction": "a"}, {"output": "b"}], "row 1 .*has no `instruction`"),
        ([{"prompt": "a", "completion": "b"}], "its columns are prompt, completion; a set has"),
        ([{"Instruction": "a"}], "did you mean 'instruction'"),
        ([{"text": "a"}], "row 0 has no instruction"),
        ([{"id": 3, "instruction": "a"}, {"id": "3", "instruction": "b"}], "rows 0 and 1 have the"),
        ([{"question_id": 1, "turns": []}], "row 0 .*`turns` is no list"),
        ([{"instruction": "a \ud83d b"}], "row 0 .*`instruction` holds half a character"),
        ([{"instruction": "a", "id": "\ud83d"}], "row 0 .*`id` holds half a character"),
        ([{"id": 1.5, "instruction": "a"}], "row 0 .*its id is neither"),
        ([{"id": "s", "instruction": "a", "instances": "x"}], "row 0 .*`instances` is no list"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path: Path, rows: list[object], said: str) -> None:
    path = write(tmp_path / "bad.jsonl", *rows)
    with pytest.raises(ZbenchError, match=said) as caught:
        read_set(path, None)
    assert "bad.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", "", r"is empty \(0 bytes\)"),
        ("none.json", "[]", "holds no instructions"),
        ("page.html", "<!doctype html><html></html>", "is a web page"),
        ("absent.json", None, "no such file"),
        ("cut.json", '[{"instruction": "a"}, {"instr', "row 1"),
        ("twice.csv", "instruction,instruction\na,b\n", "column instruction twice"),
        ("other.csv", "question,answer\na,b\n", "its columns are question, answer"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ZbenchError, match=said) as caught:
        read_set(str(tmp_path / name), None)
    assert "\n" not in str(caught.value)
