"""Local files of benchmarks: in any format of rows, with the values that they hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness.evaluation.data_files import read_rows
from harness.readers.files import Unreadable


def test_a_line_of_json_ends_at_its_line_break_alone(tmp_path: Path) -> None:
    rows = [{"page": "one\u2028two\x85three\x0bfour"}, {"page": "five"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = tmp_path / "test.jsonl"
    path.write_text(text, encoding="utf-8")
    assert read_rows(path).to_pylist() == rows
    packed = tmp_path / "test.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_rows(packed).to_pylist() == rows


def test_cells_of_csv_are_numbers_where_all_of_a_column_are_and_else_as_they_stand(
    tmp_path: Path,
) -> None:
    path = tmp_path / "test.csv"
    path.write_text(
        "question,gold,share,right,time\nWhen?,1,0.5,True,10:30\n,,2,False,2020-01-01\n"
    )
    first, second = (list(row.values()) for row in read_rows(path).to_pylist())
    assert first == ["When?", 1, 0.5, True, "10:30"]
    assert second == ["", None, 2.0, False, "2020-01-01"]
    (tmp_path / "one.csv").write_text("page\nsome text\n")
    assert read_rows(tmp_path / "one.csv").to_pylist() == [{"page": "some text"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no rows"),
        ('[{"a": 1}, {"a": "x"}]', "holds values of different kinds in a column"),
        ('[{"a": 1e400}, {"a": "x"}]', "holds values of different kinds in a column"),
        (f'{{"a": {2**70}}}', "holds values of different kinds in a column"),
        ('{"a": 1}\n3', r"row 1 \(line 2\) is a number"),
        ("<html></html>", "is a web page"),
    ],
)
def test_what_is_no_table_of_rows_is_told(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(content)
    with pytest.raises(Unreadable, match=said):
        read_rows(path)
