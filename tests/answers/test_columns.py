"""Methods with their seeds, and published outputs, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.answers.columns import Answer, beside_column, method_columns
from harness.answers.instructions import read_set
from harness.answers.store import COLUMNS, Entry
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from tests.fixtures.real_data import DATA_ROOT
from tests.grid.test_loader import GRID


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))


def frame(text: str, count: int = 2, stop: str = "eos") -> pd.DataFrame:
    rows = [(str(n), "", f"q{n}", "", text * (n + 1), n + 1, stop, "d") for n in range(count)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_seeds_of_a_method_share_a_column(cells: list[Cell]) -> None:
    base = next(cell for cell in cells if cell.train is None)
    trained = next(cell for cell in cells if cell.train is not None)
    again = trained.model_copy(update={"seed": 7})
    columns = method_columns(
        [(base, "alpaca", frame("ab")), (trained, "alpaca", frame("x", stop="length"))]
        + [(again, "alpaca", frame("y"))]
    )
    assert [column.title for column in columns] == ["base", trained.method_label]
    assert [column.is_trained for column in columns] == [False, True]
    assert [member.name for member in columns[0].members] == [""]
    assert [m.name for m in columns[1].members] == [f"seed {trained.seed}", "seed 7"]
    assert columns[1].members[0].answers["1"] == Answer("xx", 2, ended=False)
    assert columns[0].mean_characters == 3.0
    assert columns[1].mean_tokens == 1.5
    assert columns[1].ended_ratio == 0.5
    assert columns[1].empty_ratio == 0.0


def test_fractions_and_models_are_told_apart_where_there_are_several(cells: list[Cell]) -> None:
    trained = next(cell for cell in cells if cell.train is not None)
    half = trained.model_copy(update={"fraction": 0.5})
    columns = method_columns([(trained, "alpaca", frame("x")), (half, "alpaca", frame("x"))])
    assert columns[1].title == f"{trained.method_label} 50%"
    other = trained.model_copy(update={"model_name": "other"})
    columns = method_columns([(trained, "alpaca", frame("x")), (other, "alpaca", frame("x"))])
    assert columns[1].title == f"other/{trained.method_label}"


def test_outputs_are_matched_by_text_and_what_does_not_match_is_told(tmp_path: Path) -> None:
    path = tmp_path / "them.json"
    rows = [("Add.\n\n1  2 ", "3"), ("Else?", "no")]
    path.write_text(
        json.dumps([{"instruction": q, "output": a, "generator": "gpt"} for q, a in rows])
    )
    found = beside_column(path, [Entry("a", "Add.", "1 2"), Entry("b", "Why?")])
    assert found.column.members[0].answers == {"a": Answer("3")}
    assert (found.column.title, found.column.is_beside) == ("gpt", True)
    assert (found.column.mean_tokens, found.column.ended_ratio) == (None, None)
    assert found.line == (
        "gpt (them.json): answers 1 of 2 prompts (not b); 1 of its outputs are to other "
        "instructions"
    )


def test_a_file_of_several_generators_goes_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    path.write_text(
        '[{"instruction": "a", "output": "b", "generator": "x"},'
        ' {"instruction": "c", "output": "d", "generator": "y"}]'
    )
    found = beside_column(path, [Entry("1", "z")])
    assert found.column.title == "mix"
    assert (found.num_matched, found.num_other) == (0, 2)
    assert found.column.mean_characters is None


@pytest.mark.skipif(DATA_ROOT is None, reason="needs ZBENCH_DATA_ROOT")
def test_published_outputs_answer_all_of_vicunas_questions() -> None:
    folder = Path(str(DATA_ROOT)) / "alpaca_eval"
    for name in ("alpaca-7b_outputs.json", "text_davinci_003_outputs.json"):
        found = beside_column(folder / name, read_set(None, None).entries)
        assert (found.num_matched, found.num_other, found.unmatched) == (80, 725, ())
