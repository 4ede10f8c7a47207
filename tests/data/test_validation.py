"""The validation share: the same rows for every cell of a data set, none of which is trained on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from harness.data.rows import Instruction
from harness.data.sets import read_chosen
from harness.data.spec import DataSpec
from harness.data.turns import columns_of
from harness.data.validation import (
    count_training_rows,
    held_out,
    num_training_rows,
    read_training,
    read_validation,
    training_rows,
    validation_fault,
)

ROWS = tuple(Instruction(f"Say {n}.", "", str(n)) for n in range(50))
GOLDEN = {3, 9, 11, 33, 37}
"""A tenth of fifty rows; what is held out may never move."""


def share(fraction: float) -> DataSpec:
    return DataSpec.model_validate({"path": "rows.parquet", "validation": {"fraction": fraction}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pd.DataFrame([columns_of(row) for row in ROWS]).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def test_what_is_held_out_does_not_move() -> None:
    assert held_out(50, 0.1) == GOLDEN
    assert held_out(50, 0.1) < held_out(50, 0.2)
    assert len(held_out(52_002, 0.02)) == 1040


def test_no_cell_trains_on_validation_rows_whatever_its_fraction_and_seed() -> None:
    spec = share(0.1)
    for seed in (0, 1):
        drawn = [training_rows(spec, 50, fraction, seed) for fraction in (0.2, 0.5, 1.0)]
        assert [len(rows) for rows in drawn] == [9, 22, 45]  # of the 45 that are left
        assert not any(GOLDEN & {*rows} for rows in drawn)
        assert drawn[2][:9] == drawn[0]
        assert {*drawn[2]} == {*range(50)} - GOLDEN


def test_without_a_share_the_same_rows_are_drawn_as_ever(folder: Path) -> None:
    spec = DataSpec(path="rows.parquet")
    assert read_training(spec, 0.3, 1, folder) == read_chosen(spec, 0.3, 1, folder)
    assert read_validation(spec, folder) is None
    assert num_training_rows(spec, 50) == 50


def test_rows_are_read_as_they_are_drawn(folder: Path) -> None:
    found = read_validation(share(0.1), folder)
    assert found is not None
    assert found.rows == tuple(ROWS[row] for row in sorted(GOLDEN))
    trained = read_training(share(0.1), 1.0, 0, folder)
    assert {*trained.rows} == {*ROWS} - {*found.rows}
    whole = read_chosen(DataSpec(path="rows.parquet"), 1.0, 0, folder)
    assert trained.identity == whole.identity  # of the whole set
    assert count_training_rows(share(0.1), folder) == 45


def test_a_file_of_its_own_leaves_all_rows_to_the_training(folder: Path) -> None:
    pd.DataFrame([columns_of(row) for row in ROWS[:3]]).to_parquet(folder / "held.parquet")
    spec = DataSpec.model_validate({"path": "rows.parquet", "validation": {"path": "held.parquet"}})
    found = read_validation(spec, folder)
    assert found is not None
    assert found.rows == ROWS[:3]
    assert len(read_training(spec, 1.0, 0, folder).rows) == 50


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.001, "holds out no row"), (0.999, "holds out all of them")]
)
def test_a_share_of_nothing_or_all_is_told(fraction: float, said: str) -> None:
    assert said in str(validation_fault(share(fraction), 50))
    assert validation_fault(share(0.1), 50) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "needs one of"),
        ({"fraction": 0.1, "path": "held.parquet"}, "needs one of"),
        ({"fraction": 1}, "less than 1"),
    ],
)
def test_an_entry_says_one_thing(entry: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSpec.model_validate({"path": "rows.parquet", "validation": entry})
