"""Parquet from outside: what it says of itself, what is read of it, and what is refused how."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from harness.readers import parquet_files
from harness.readers.files import ADVICE, Unreadable
from harness.readers.parquet_files import read_batches, read_columns, read_footer

ROWS = [{"text": f"row {n}", "number": n, "options": ["a", f"b{n}"]} for n in range(10)]


def write(path: Path, rows: list[dict[str, Any]] | pyarrow.Table = ROWS, **how: Any) -> Path:
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, **how)
    return path


def test_the_footer_says_columns_and_rows(tmp_path: Path) -> None:
    footer = read_footer(write(tmp_path / "a.parquet"))
    assert footer.num_rows == 10
    assert list(footer.types) == ["text", "number", "options"]


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"row_group_size": 3},
                                 {"use_dictionary": False}, {"data_page_version": "2.0"},
                                 {"use_dictionary": False, "column_encoding":
                                  {"text": "DELTA_BYTE_ARRAY"}}])  # fmt: skip
def test_columns_come_as_they_were_written(tmp_path: Path, how: dict[str, Any]) -> None:
    path = write(tmp_path / "a.parquet", **how)
    assert read_columns(path, ["options", "text"]).to_pylist() == [
        {"options": row["options"], "text": row["text"]} for row in ROWS
    ]


def test_texts_in_lists_are_read_however_many_they_are(tmp_path: Path) -> None:
    rows = [{"options": [f"{n}/{option}" * 9 for option in range(4)]} for n in range(5000)]
    path = write(tmp_path / "a.parquet", rows, dictionary_pagesize_limit=1000, row_group_size=2000)
    assert read_columns(path, ["options"]).to_pylist() == rows


def test_texts_come_as_plain_strings_from_any_form_of_text(tmp_path: Path) -> None:
    texts = ["one", None, "two", "one"]
    forms = {
        "string": pyarrow.array(texts),
        "large": pyarrow.array(texts, pyarrow.large_string()),
        "view": pyarrow.array(texts, pyarrow.string_view()),
        "category": pyarrow.array(texts).dictionary_encode(),
    }
    table = read_columns(write(tmp_path / "a.parquet", pyarrow.table(forms)), list(forms))
    assert {field.type for field in table.schema} == {pyarrow.string()}
    assert all(table[name].to_pylist() == texts for name in forms)


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pyarrow.Table.from_pylist(ROWS).slice(0, 0))
    table = read_columns(path, ["text", "options"])
    assert table.num_rows == 0
    assert table.column_names == ["text", "options"]


def test_equal_rows_are_read_in_bounded_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "MAX_BATCH_BYTES", 10_000)
    path = write(tmp_path / "a.parquet", pyarrow.table({"text": ["x" * 999] * 2000}))
    assert path.stat().st_size < 10_000
    sizes = [batch.nbytes for batch in read_batches(path, ["text"])]
    assert sum(batch.num_rows for batch in read_batches(path, ["text"])) == 2000
    assert max(sizes) < 12_000


def test_what_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", pyarrow.table({"text": ["x" * 999] * 2000}))
    with pytest.raises(Unreadable, match=r"a\.parquet: has rows of more than .* of text"):
        read_columns(path, ["text"], max_bytes=100_000)
    monkeypatch.setattr(parquet_files, "MAX_GROUP_VALUES", 1000)
    with pytest.raises(Unreadable, match="has 2,000 values of text in one of its row groups"):
        read_columns(path, ["text"])
    monkeypatch.undo()
    monkeypatch.setattr(parquet_files, "MAX_TABLE_VALUES", 1000)
    with pytest.raises(Unreadable, match=r"is too large \(2,000 values, at most 1,000 are"):
        read_columns(path, ["text"])
    monkeypatch.undo()
    monkeypatch.setattr(parquet_files, "MAX_BATCH_BYTES", 500)
    monkeypatch.setattr(parquet_files, "MAX_ROW_BYTES", 500)
    with pytest.raises(Unreadable, match="row 0 has too much text"):
        read_columns(path, ["text"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([b"\xff", b"a"], "binary"),
        (pyarrow.array([1, 2], pyarrow.timestamp("ns")), "timestamp"),
        ([Decimal("1.5"), Decimal(2)], "decimal"),
        ([1, 2], "int64"),
        (pyarrow.nulls(2), "null"),
        ([["a"], ["b"]], "list"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, values: Any, kind: str) -> None:
    footer = read_footer(write(tmp_path / "a.parquet", pyarrow.table({"t": values})))
    with pytest.raises(Unreadable, match=rf"a\.parquet: column t holds {kind}.*, not text"):
        footer.check({"t": "text"})


def test_plain_columns_are_what_json_can_say(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([{"a": [{"b": [1.5], "c": True}], "d": None, "e": b"x"}])
    footer = read_footer(write(tmp_path / "a.parquet", table))
    footer.check({"a": "plain", "d": "plain"})
    with pytest.raises(Unreadable, match="column e holds binary"):
        footer.check({"e": "plain"})


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pyarrow.table({f"c{n}": [1] for n in range(40)}))
    with pytest.raises(Unreadable, match=r"lacks the columns x, y \(it has c0, .*, and 28 more\)"):
        read_columns(path, ["x", "c1", "y"])


def test_a_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], ["t", "t"])
    with pytest.raises(Unreadable, match="has the column t more than once"):
        read_footer(write(tmp_path / "a.parquet", table))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    offsets = pyarrow.array([0, 1, 3], pyarrow.int32()).buffers()[1]
    bad = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"a\xff\xfe")]
    )
    path = write(tmp_path / "a.parquet", pyarrow.table({"t": bad}))
    with pytest.raises(Unreadable, match="column t holds what is no text in UTF-8, in rows 0 to 1"):
        read_columns(path, ["t"])


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.parquet", content)
    return buffer.getvalue()


def _arrow() -> bytes:
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(pyarrow.table({"a": [1]}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps(ROWS).encode(), "JSON"),
        (json.dumps({"data": ROWS}, indent=1).encode(), "JSON"),
        (b"".join(json.dumps(row).encode() + b"\n" for row in ROWS), "JSON Lines"),
        (b"instruction,input,output\na,b,c\n", "CSV"),
        ("\ufeffinstruction;input\nä;b\n".encode(), "CSV"),
        (b"instruction\tinput\na\tb\n", "TSV"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"Hello there\n", "text"),
        (" \n".encode("utf-16"), "text in UTF-16"),
        (_arrow(), "an Arrow file"),
        (_zip(b"x"), "a zip archive"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (bytes(range(256)), "no known format"),
        (b"\0" * 100, "no known format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",  # gzip holds the time
)
def test_another_format_is_told_by_its_content(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=rf"rows\.parquet: is {name}.*, where parquet is") as told:
        read_footer(path)
    assert told.value.cause == "other format"
    assert "again" not in str(told.value)
    assert "parquet" in str(told.value).partition(";")[2] or name == "a web page"


def test_each_cause_has_its_own_cure(tmp_path: Path) -> None:
    """Applies the advice of each cause, and sees the file read."""
    good = write(tmp_path / "good.parquet").read_bytes()
    path = tmp_path / "a.parquet"
    bad = {
        "missing": None,
        "empty": b"",
        "cut off": good[:-20],
        "damaged": good[: len(good) - 60] + b"\xff" * 30 + good[-30:],
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    for cause, content in bad.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Unreadable) as told:
            read_columns(path, ["text"])
        assert told.value.cause == cause
        assert ADVICE[told.value.cause] in str(told.value)
        path.write_bytes(good)  # what each of them says to do
        assert read_columns(path, ["text"]).num_rows == 10


def test_bytes_changed_anywhere_give_rows_or_one_line(tmp_path: Path) -> None:
    good = bytearray(write(tmp_path / "a.parquet", compression="none").read_bytes())
    path, told = tmp_path / "b.parquet", []
    for place in range(4, len(good), 19):
        content = bytearray(good)
        content[place] ^= 0xFF
        path.write_bytes(content)
        try:  # any other exception fails the test
            assert read_columns(path, ["text", "options"]).column_names == ["text", "options"]
        except Unreadable as fault:
            told.append(str(fault))
    assert told
    assert not any("\n" in line for line in told)
