"""Pictures of rows: where they stand in files, what is refused of them, and identities."""

from __future__ import annotations

import base64
import gc
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image
from transformers import AutoTokenizer

from harness.data.instructions import tokenize
from harness.data.rows import Instruction, ScienceQuestion, picture_of
from harness.data.sets import Instructions, content_of, count_rows, read_instructions, rows_sha256
from harness.data.spec import DataSpec
from harness.demo.world import CHECKPOINT
from harness.errors import ZbenchError
from harness.readers.parquet_files import PICTURE_ROWS
from harness.readers.pictures import Picture
from tests.fixtures.picture_files import drawn

RED, BLUE = drawn(1), drawn(2, "JPEG")
ASKED = {"instruction": "What is it?", "output": "A dog."}


def read(path: Path, **settings: Any) -> Instructions:
    return read_instructions(DataSpec(path=str(path), **settings), data_root=None)


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fault_of(path: Path, **settings: Any) -> str:
    with pytest.raises(ZbenchError) as told:
        read(path, **settings)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "image",
    [
        {"image": {"bytes": RED, "path": "red.png"}},
        {"image": RED},
        {"images": [RED]},
        {"images": [{"bytes": RED, "path": None}]},
    ],
)
def test_a_table_holds_pictures_in_several_ways(tmp_path: Path, image: dict[str, Any]) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [ASKED | image, ASKED | dict.fromkeys(image)])
    data = read(path)
    assert data.rows == (
        Instruction("What is it?", "", "A dog.", Picture.of(RED)),
        Instruction("What is it?", "", "A dog."),
    )
    assert picture_of(data.rows[0]).data == RED  # type: ignore[union-attr]
    assert str(data.report) == "2 rows (instruction); 1 with a picture"


def test_lines_hold_base64(tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(RED).decode()
    images = [address, None, ""]
    path = write_lines(tmp_path / "rows.jsonl", [ASKED | {"image": one} for one in images])
    assert [picture_of(row) for row in read(path).rows] == [Picture.of(RED), None, None]
    late = write_lines(tmp_path / "late.jsonl", [ASKED] * 150 + [ASKED | {"image": address}])
    assert picture_of(read(late).rows[150]) == Picture.of(RED)


def test_arrow_files_hold_them_too(tmp_path: Path) -> None:
    rows = [ASKED | {"image": {"bytes": RED, "path": ""}}] * 3
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), str(tmp_path / "rows"))
    assert {picture_of(row) for row in read(tmp_path / "rows").rows} == {Picture.of(RED)}


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"bytes": b"", "path": "a.png"}, "row 1: image: the picture has zero bytes"),
        (b"GIF8 no picture", "row 1: image: its bytes are no picture"),
        (drawn(3)[:-40], "row 1: image: its bytes are no picture, or its end is missing"),
        (drawn(3, "JPEG", 64)[:-900], "row 1: image: its bytes are no picture, or its end is miss"),
        ({"bytes": None, "path": "gone.png"}, "row 1: image names a picture that the data do not"),
    ],
)
def test_a_bad_picture_is_named_by_its_row(tmp_path: Path, image: Any, said: str) -> None:
    whole = RED if isinstance(image, bytes) else {"bytes": RED, "path": "red.png"}
    rows = [ASKED | {"image": whole}, ASKED | {"image": image}]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    assert said in fault_of(path)
    assert said in fault_of(path, on_bad_rows="keep")  # no text takes its place
    assert read(path, on_bad_rows="drop").report.dropped == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"image": "a.png"},
            "image names a picture that the data do not hold (a.png); put its bytes",
        ),
        ({"image": "https://host/a.png"}, "image names a picture that the data do not hold (https"),
        ({"image": 7}, "image is no picture (7)"),
        ({"image": "data:image/png;base64,%%%"}, "image is no picture in base64"),
        ({"images": ["a.png", "b.png"]}, "images holds 2 pictures; a row may have one"),
        ({"image": "", "images": ["a.png"]}, "has images, which a row of its form has no"),
    ],
)
def test_what_lines_may_not_say_of_a_picture(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    assert said in fault_of(write_lines(tmp_path / "rows.jsonl", [ASKED | row]))


def test_a_huge_picture_is_refused_before_its_pixels_are_made(tmp_path: Path) -> None:
    for size in (12_000, 20_000):
        file = io.BytesIO()
        Image.new("1", (size, size)).save(file, "PNG")
        path = write_parquet(tmp_path / "rows.parquet", [ASKED | {"image": file.getvalue()}])
        assert "row 0: image: the picture is huge (" in fault_of(path)


def test_the_identity_knows_a_picture_by_its_content_and_no_picture_by_nothing() -> None:
    plain, red = Instruction("a", "b", "c"), Instruction("a", "b", "c", Picture.of(RED))
    blue = Instruction("a", "b", "c", Picture.of(BLUE))
    assert plain.content == ("a", "b", "c")
    assert len({rows_sha256([row]) for row in (plain, red, blue)}) == 3
    question = ScienceQuestion("q", ("x", "y"), 0)
    assert question.content == {"question": "q", "choices": ["x", "y"], "answer": 0}


def test_the_same_rows_have_the_same_identity_in_any_format(tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(RED).decode()
    lines = write_lines(tmp_path / "rows.jsonl", [ASKED | {"image": address}])
    table = write_parquet(tmp_path / "rows.parquet", [ASKED | {"image": RED}])
    found = {content_of(DataSpec(path=str(path)), None) for path in (lines, table)}
    assert found == {read(table).identity["sha256"]}


def test_mapped_columns_have_a_picture_where_it_is_mapped(tmp_path: Path) -> None:
    row = {"q": "What is it?", "a": "A dog.", "image": RED, "photo": BLUE}
    path = write_parquet(tmp_path / "rows.parquet", [row])
    columns = {"instruction": "q", "output": "a"}
    assert picture_of(read(path, columns=columns).rows[0]) is None
    mapped = read(path, columns=columns | {"image": "photo"}).rows[0]
    assert picture_of(mapped) == Picture.of(BLUE)


def test_a_column_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [ASKED | {"image": {"width": 3}}])
    assert "column image holds struct<width: int64>, no picture" in fault_of(path)


def test_equal_pictures_are_held_once_and_none_by_planning(tmp_path: Path) -> None:
    rows = [ASKED | {"image": {"bytes": drawn(n % 3), "path": None}} for n in range(200)]
    assert len(rows) > 3 * PICTURE_ROWS
    others = {id(one) for one in gc.get_objects() if type(one) is Picture}
    path = write_parquet(tmp_path / "rows.parquet", rows)
    data = read(path)
    assert len({id(picture_of(row)) for row in data.rows}) == 3
    del data
    assert count_rows(DataSpec(path=str(path)), None) == 200
    content_of(DataSpec(path=str(path)), None)
    gc.collect()
    assert {id(one) for one in gc.get_objects() if type(one) is Picture} <= others


def test_tokens_carry_the_name_of_the_picture() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    rows = [Instruction("a", "", "b", Picture.of(RED)), Instruction("a", "", "b")]
    with_picture, without = tokenize(rows, tokenizer, 512)
    assert with_picture.picture == Picture.of(RED).sha256
    assert without.picture is None
    assert with_picture.token_ids == without.token_ids
