from __future__ import annotations

import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from harness.errors import DataError
from harness.evaluation.data_files import read_rows
from harness.evaluation.local_data import read_split, subjects_in
from harness.readers.files import Unreadable
from tests.evaluation.conftest import write_rows

ROWS = [{"q": "a", "subject": "x"}, {"q": "b", "subject": "y"}, {"q": "c", "subject": "x"}]


def read(path: Path, *columns: str, subject: str | None = None) -> list[dict[str, str]]:
    return list(read_split(path, columns, subject_column="subject", subject=subject))


def test_rows_of_one_subject_keep_their_order(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.parquet", ROWS)
    assert [row["q"] for row in read(tmp_path / "t.parquet", "q", subject="x")] == ["a", "c"]
    assert subjects_in(tmp_path / "t.parquet", "subject") == ["x", "y"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"t\.parquet: no such file"):
        read(tmp_path / "t.parquet", "q")


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.parquet", ROWS)
    with pytest.raises(Unreadable, match=r"lacks the column endings \(it has q, subject\)"):
        read(tmp_path / "t.parquet", "q", "endings")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_rows(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Unreadable, match=r"t\.parquet: is a parquet file whose end") as caught:
        read(path, "q")
    assert "\n" not in str(caught.value)


def test_a_file_of_no_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(Unreadable, match=r"t\.parquet: is empty"):
        read(tmp_path / "t.parquet", "q")


def test_a_file_without_rows_is_named(tmp_path: Path) -> None:
    schema = pyarrow.schema([("q", pyarrow.string()), ("subject", pyarrow.string())])
    pyarrow.parquet.write_table(schema.empty_table(), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: it holds no row;"):
        read(tmp_path / "t.parquet", "q")


def test_a_subject_without_rows_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.parquet", ROWS)
    with pytest.raises(DataError, match="it holds no row of subject 'z'"):
        read(tmp_path / "t.parquet", "q", subject="z")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_rows(path, ROWS)
    assert len(read(path, "q")) == 3
    write_rows(path, ROWS[:1])
    os.utime(path, ns=(1, 1))
    assert len(read(path, "q")) == 1


def test_dates_and_times_of_a_csv_are_the_text_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("day,hour,moment,label\n2020-01-02,10:30,2020-01-02T10:30:00Z,3\n")
    (row,) = read_rows(path).to_pylist()
    assert row == {
        "day": "2020-01-02", "hour": "10:30", "moment": "2020-01-02T10:30:00Z", "label": 3,
    }  # fmt: skip
