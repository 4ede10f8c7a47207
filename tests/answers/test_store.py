"""Answers on disk: whole, with their origin, and in AlpacaEval's format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.answers.store import (
    COLUMNS,
    GREEDY,
    Entry,
    InstructionSet,
    Output,
    outputs_of,
    read_origin,
    read_outputs,
    read_responses,
    responses_path,
    set_folder,
    set_key,
    write_outputs,
    write_responses,
)
from harness.errors import StorageError
from harness.readers.files import Unreadable
from scripts.make_schema_page import RESPONSES
from tests.fixtures.real_data import DATA_ROOT

ENTRIES = [
    Entry("1", "How?", category="generic", dataset="vicuna"),
    Entry("2", "Add.", "1\n2", dataset="mine"),
]
SET = InstructionSet.of("mine", ENTRIES)


def frame() -> pd.DataFrame:
    rows = [
        (e.id, e.category, e.instruction, e.input, f"so {e.id}", 2, "eos", e.dataset)
        for e in ENTRIES
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_key_follows_content_and_settings_that_matter() -> None:
    assert set_key(SET) == f"mine-{SET.sha256[:8]}"
    assert set_key(SET, replace(GREEDY, seed=4, top_p=0.5)) == set_key(SET)
    hot = replace(GREEDY, temperature=0.7, seed=4, top_p=0.5, max_new_tokens=64)
    assert set_key(SET, hot) == f"{set_key(SET)}-t0.7-p0.5-s4-n64"
    other = InstructionSet.of("mine", [ENTRIES[0], replace(ENTRIES[1], input="1")])
    assert set_key(other) != set_key(SET)
    assert set_folder(Path("r"), "demo", SET) == Path("r/demo/answers") / set_key(SET)


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_responses(tmp_path, "k") is None
    assert read_origin(tmp_path, "k") is None
    write_responses(tmp_path, "k", frame(), {"cell_id": "c", "seconds": 1.5})
    pd.testing.assert_frame_equal(read_responses(tmp_path, "k"), frame())
    assert read_origin(tmp_path, "k") == {"cell_id": "c", "seconds": 1.5}


def test_the_document_lists_the_columns() -> None:
    assert tuple(RESPONSES) == COLUMNS


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_responses(tmp_path, "k", frame(), {})
    path = responses_path(tmp_path, "k")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match="cannot be read.*generate makes it again") as caught:
        read_responses(tmp_path, "k")
    assert str(path) in str(caught.value)
    with pytest.raises(StorageError, match="cannot be read"):
        read_origin(tmp_path, "k")


def test_outputs_round_trip_and_join_the_input(tmp_path: Path) -> None:
    outputs = outputs_of(frame(), "lora/seed0")
    assert outputs[1] == Output("Add.\n\n1\n2", "so 2", "lora/seed0", "mine")
    path = tmp_path / "model_outputs.json"
    write_outputs(path, outputs)
    assert list(json.loads(path.read_text())[0]) == [
        "instruction",
        "output",
        "generator",
        "dataset",
    ]
    assert read_outputs(path) == outputs


def test_outputs_without_a_generator_go_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "alpaca-7b.json"
    path.write_text('[{"instruction": "a", "output": "b", "dataset": null}]')
    assert read_outputs(path) == [Output("a", "b", "alpaca-7b", "")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"instruction": "a"}]', "row 0 has no text in `output`"),
        ('[{"instruction": "a", "output": "b"}, {"output": "b"}]', "row 1 has no text in `instr"),
        ("[]", "has no rows"),
        (r'[{"instruction": "a", "output": "\ud83d"}]', "row 0: `output` holds half a character"),
        (
            '[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "c"}]',
            "rows 0 and 1 answer one instruction in two ways",
        ),
    ],
)
def test_wrong_outputs_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(text)
    with pytest.raises(Unreadable, match=said) as caught:
        read_outputs(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(DATA_ROOT is None, reason="needs ZBENCH_DATA_ROOT")
@pytest.mark.parametrize("name", ["alpaca-7b_outputs.json", "text_davinci_003_outputs.json"])
def test_published_outputs_are_read(name: str) -> None:
    outputs = read_outputs(Path(str(DATA_ROOT)) / "alpaca_eval" / name)
    assert len(outputs) == 805
    assert sum(output.dataset == "vicuna" for output in outputs) == 80
