"""Files of rows of every format: the same rows, whatever they are called and packed by."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from harness.data.rows import Conversation, Instruction, Row, Text, Turn
from harness.data.sets import choose, content_of, count_rows, read_chosen, read_instructions
from harness.data.spec import DataSpec
from harness.data.turns import columns_of
from harness.errors import ZbenchError
from tests.fixtures.real_data import DATA_ROOT

ROWS = tuple(
    Instruction(f'Say "{n}", née\n\tso', "" if n % 3 else "a, b; c", str(n)) for n in range(40)
)
RECORDS = [columns_of(row) for row in ROWS]
CHATS = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}"}]}
    for n in range(9)
]


def read(path: Path, **settings: object) -> tuple[Row, ...]:
    spec = DataSpec.model_validate({"path": str(path), **settings})
    return read_instructions(spec, data_root=None).rows


def fault_of(path: Path, **settings: object) -> str:
    with pytest.raises(ZbenchError) as told:
        read(path, **settings)
    assert len(str(told.value).splitlines()) == 1
    assert str(told.value).startswith(str(path))
    return str(told.value)


def as_lines(records: Sequence[object]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def as_csv(records: Sequence[dict[str, str]], separator: str = ",") -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(records[0]), delimiter=separator)
    table.writeheader()
    table.writerows(records)
    return text.getvalue().encode()


def as_arrow(records: Sequence[object], *, stream: bool) -> bytes:
    table, sink = pyarrow.Table.from_pylist(list(records)), pyarrow.BufferOutputStream()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def as_parquet(records: Sequence[object]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(records)), sink)
    return sink.getvalue().to_pybytes()


FORMATS: dict[str, Callable[[Sequence[object]], bytes]] = {
    "parquet": as_parquet,
    "json": lambda rows: json.dumps(rows, indent=4).encode(),
    "json with a mark": lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode(),
    "jsonl": as_lines,
    "objects over several lines": lambda rows: "\n".join(
        json.dumps(row, indent=1) for row in rows
    ).encode(),
    "csv": as_csv,  # type: ignore[dict-item]
    "tsv": lambda rows: as_csv(rows, "\t"),  # type: ignore[arg-type]
    "semicolons": lambda rows: as_csv(rows, ";"),  # type: ignore[arg-type]
    "feather": lambda rows: as_arrow(rows, stream=False),
    "arrow stream": lambda rows: as_arrow(rows, stream=True),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("form", FORMATS)
def test_the_same_rows_come_of_every_format(tmp_path: Path, form: str, packed: str) -> None:
    """Told by the content: the name says another format."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(PACKED[packed](FORMATS[form](RECORDS)))
    assert read(path) == ROWS


@pytest.mark.parametrize("form", ["parquet", "json", "jsonl", "feather", "arrow stream"])
def test_conversations_come_of_every_format_that_has_lists(tmp_path: Path, form: str) -> None:
    path = tmp_path / "chats"
    path.write_bytes(FORMATS[form](CHATS))
    assert read(path) == tuple(
        Conversation((Turn("user", f"{n}?"), Turn("assistant", f"{n}"))) for n in range(9)
    )


@pytest.mark.parametrize(
    ("form", "builder"),
    [("json", "json"), ("jsonl", "json"), ("csv", "csv"), ("arrow stream", "arrow")],
)
def test_the_rows_are_those_that_datasets_reads(tmp_path: Path, form: str, builder: str) -> None:
    import datasets

    path = tmp_path / "rows"
    path.write_bytes(FORMATS[form](RECORDS))
    texts = datasets.Features(dict.fromkeys(RECORDS[0], datasets.Value("string")))
    extra = {"keep_default_na": False, "features": texts} if builder == "csv" else {}
    theirs = datasets.load_dataset(
        builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"), **extra
    )
    assert [columns_of(row) for row in read(path)] == list(theirs)


def test_a_set_that_was_saved_to_disk_is_read_split_by_split(tmp_path: Path) -> None:
    import datasets

    one, other = RECORDS[:30], RECORDS[30:]
    splits = {"train": datasets.Dataset.from_list(one), "test": datasets.Dataset.from_list(other)}
    splits["train"].save_to_disk(tmp_path / "one", num_shards=3)
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    assert read(tmp_path / "one") == read(tmp_path / "both") == ROWS[:30]
    assert read(tmp_path / "both", split="test") == ROWS[30:]
    assert "has no split 'dev' (known: train, test)" in fault_of(tmp_path / "both", split="dev")


def test_a_folder_and_a_glob_are_one_set_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "README.md").write_text("no rows")
    (tmp_path / "b" / "1.json").write_bytes(FORMATS["json"](RECORDS[20:]))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FORMATS["csv"](RECORDS[:20])))
    spec = DataSpec(path=str(tmp_path / "**" / "*.[cj]s*"))
    assert read(tmp_path) == read(Path(str(spec.path))) == ROWS
    assert count_rows(spec, None) == 40
    assert content_of(spec, None) == content_of(DataSpec(path=str(tmp_path)), None)
    (tmp_path / "b" / "2.json").write_bytes(FORMATS["jsonl"]([{"text": "a"}]))
    assert "2.json: its rows are of the form text, those of " in _told(tmp_path)
    bad = '{"instruction": "a", "output": null}'
    for name in ("2.json", "3.json"):
        (tmp_path / "b" / name).write_text(bad)
    assert _told(tmp_path).startswith(f"{tmp_path} (4 files): 2 rows cannot be trained on")
    assert "2.json, row 0: output is null; 3.json, row 0: output is null; " in _told(tmp_path)
    assert "no file matches" in fault_of(tmp_path / "*.xml")


def _told(path: Path) -> str:
    with pytest.raises(ZbenchError) as told:
        read(path)
    return str(told.value)


def test_splits_and_subsets_of_a_folder_are_told_by_names(tmp_path: Path) -> None:
    for subset, start in (("de", 0), ("en", 20)):
        (tmp_path / subset / "data").mkdir(parents=True)
        for split, first in (("train-00000-of-00001", start), ("validation", start + 15)):
            content = FORMATS["parquet"](RECORDS[first : first + 5])
            (tmp_path / subset / "data" / f"{split}.parquet").write_bytes(content)
    assert read(tmp_path, subset="en") == ROWS[20:25]
    assert read(tmp_path, subset="de", split="validation") == ROWS[15:20]
    assert "no folder for the subset 'fr' (known: de, en)" in fault_of(tmp_path, subset="fr")
    one = tmp_path / "en" / "data" / "validation.parquet"
    assert "`subset` names a folder of a local set" in fault_of(one, subset="en")
    assert read(one, split="validation") == ROWS[35:40]
    said = fault_of(tmp_path / "en", split="test")
    assert "is of split 'test' (it has train, validation)" in said
    (tmp_path / "en" / "more.parquet").write_bytes(FORMATS["parquet"](RECORDS[:5]))
    said = fault_of(tmp_path / "en")
    assert "files of split train and validation, and more.parquet whose name says none" in said
    assert read(tmp_path / "en", split="train") == ROWS[20:25]


def test_fractions_and_identity_are_of_the_rows_and_not_of_the_format(tmp_path: Path) -> None:
    contents = set()
    for form in ("parquet", "jsonl", "csv"):
        (tmp_path / form).write_bytes(FORMATS[form](RECORDS))
        spec = DataSpec(path=str(tmp_path / form))
        data = read_chosen(spec, 0.3, 1, None)
        assert data.rows == choose(ROWS, 0.3, 1)
        contents |= {content_of(spec, None), data.identity["sha256"]}
    assert len(contents) == 1


def test_of_a_large_set_of_any_format_the_same_rows_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").write_bytes(as_lines(CHATS))
    spec = DataSpec(path=str(tmp_path / "rows"))
    whole = read_chosen(spec, 0.5, 3, None)
    monkeypatch.setattr("harness.data.sets.WHOLE_ROWS", 3)
    assert read_chosen(spec, 0.5, 3, None) == whole


def test_a_row_may_stand_over_the_border_of_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps(RECORDS, ensure_ascii=False).encode()
    (tmp_path / "rows").write_bytes(content)
    for size in (1, 7, 64, len(content) - 1):
        monkeypatch.setattr("harness.readers.json_rows.BLOCK_BYTES", size)
        assert read(tmp_path / "rows") == ROWS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"[]", "has no rows"),
        (b"[1, 2]", "row 0 (line 1) is a number, where an object"),
        (b'[{"text": "a"}, "b"]', "row 1 (line 1) is a text"),
        (b'[{"text": "a"}', "the end of its list is missing"),
        (b'[{"text": "a"} {"text": "b"}]', "row 0 is followed by no comma"),
        (b'{"text": "a"}\n{"text": "b}', "row 1 is no JSON (line 2: Unterminated string"),
        (b'{"text": "a"}\n{"text": nought, "more": "%s"}' % (b"x" * 99), "row 1 is no JSON (line"),
        (b'{"text": "caf\xe9 au lait"}', "is no UTF-8 text (byte 0xe9 in or after row 0)"),
        (b'{"text": "a"}\n{"text": ' + b"[" * 99_999, "row 1 is nested too deeply"),
        (b'{"text": "a"}\n{"text": ' + b"1" * 9999 + b"}", "row 1 holds a number beyond reason"),
        (b'{"rows": [{"text": "a"}], "version": 1}', "is one JSON object (rows, version), where"),
        (b"instruction,output\na,b\nc\n", "line 3: a row has 1 cells, the header 2"),
        (b'instruction,output\na,"b\nc,d\n', "is no CSV (unexpected end of data)"),
        (b'instruction,output\na,"b"c"\n', "line 2: is no CSV"),
        (b"instruction,instruction\na,b\n", "has the column instruction twice"),
        (b"instruction,output\n", "has no rows"),
        (b"instruction,output\na,caf\xe9\n", "is no UTF-8 text (byte 0xe9"),
        (b"\xff\xfe" + "a,b".encode("utf-16-le"), "is text in UTF-16, no file of rows"),
        (gzip.compress(as_lines(CHATS), mtime=0)[:-9], "is a gzip file whose end is missing"),
        (gzip.compress(b"a" * 99, mtime=0)[:12] + b"\0" * 30, "is damaged gzip"),
        (PACKED["zst"](as_lines(CHATS * 99))[:-9], "is a zstd file whose end is missing"),
        (gzip.compress(as_parquet(RECORDS)[:-9], mtime=0), "unpacked, is a parquet file whose end"),
        (as_arrow(RECORDS, stream=True)[:-200], "is damaged Arrow, or its end is missing"),
        (b"%PDF-1.4", "is a PDF, no file of rows (parquet, JSON"),
        (b"<!doctype html><html>", "is a web page, no file of rows"),
        (b"plain words\nwithout a header\n", "is text, no file of rows"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert said in fault_of(tmp_path / "rows.jsonl")


def test_one_huge_row_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.readers.json_rows.BLOCK_BYTES", 2**12)
    monkeypatch.setattr("harness.readers.json_rows.MAX_ROW_BYTES", 2**16)
    monkeypatch.setattr("harness.readers.csv_rows.MAX_CELL", 2**16)
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(b'{"text": "' + b"a" * 2**24 + b'"}'))
    assert "row 0 has more than 0 MiB: one huge object is no row" in fault_of(path)
    path.write_bytes(gzip.compress(b"text,b\n" + b"a" * 2**24))
    assert "line 2 has no end" in fault_of(path)


def test_a_column_of_one_name_is_a_table_of_it(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text\n"one, two"\nthree\n')
    assert read(tmp_path / "rows.csv") == (Text("one, two"), Text("three"))


def test_cells_of_a_table_of_texts_are_texts(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,instruction,output\n1,7,NA\n2,null,0.50\n3,x,\n")
    assert [columns_of(row) for row in read(tmp_path / "rows.csv")] == [
        {"instruction": "7", "input": "", "output": "NA"},
        {"instruction": "null", "input": "", "output": "0.50"},
        {"instruction": "x", "input": "", "output": ""},
    ]


REAL = pytest.mark.skipif(DATA_ROOT is None, reason="ZBENCH_DATA_ROOT names no folder of real data")


@REAL
@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("alpaca_en_demo.json", Instruction, 200),
        ("identity.json", Instruction, 91),
        ("c4_demo.jsonl", Text, 100),
        ("v1_sft_demo.jsonl", Conversation, 60),
    ],
)
def test_real_files_are_read(name: str, kind: type[Row], count: int) -> None:
    rows = read(Path(str(DATA_ROOT)) / "formats" / name)
    assert len(rows) == count
    assert {type(row) for row in rows} == {kind}


@REAL
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("formats/dpo_en_demo.json", "holds preferences (conversations, chosen, rejected)"),
        ("formats/mllm_demo.json", "holds pictures (column images), which are taken"),
        ("formats/glaive_toolcall_en_demo.json", "row 0: turn 3 is a tool call or its answer"),
        ("alpaca_eval/alpaca-7b_annotations_gpt4.json", "holds preferences (instruction, output_1"),
        ("arc_easy/test.parquet", "choices, answerKey belong to a benchmark's items"),
        ("mmlu/dev.parquet", "choices belongs to a benchmark's items"),
        ("scienceqa/gpt3_cot_predictions.json", "is one JSON object (acc, results, outputs)"),
        ("peft_suite/metamathqa.json", "if rows are its rows, give that list alone"),
        ("instructions/vicuna_bench_question.jsonl", "(it has question_id, category, turns)"),
        ("llama_tokenizer/tokenizer.model", "is no known format, no file of rows"),
    ],
)
def test_real_files_without_training_rows_are_told_apart(name: str, said: str) -> None:
    assert said in fault_of(Path(str(DATA_ROOT)) / name)


@REAL
def test_tool_calls_can_be_left_out(tmp_path: Path) -> None:
    path = Path(str(DATA_ROOT)) / "formats" / "glaive_toolcall_en_demo.json"
    assert len(read(path, on_bad_rows="drop")) == 16


@REAL
def test_alpaca_as_released_is_the_pinned_set(tmp_path: Path) -> None:
    """Stanford's alpaca_data.json, made again byte for byte from the parquet."""
    frame = pd.read_parquet(Path(str(DATA_ROOT)) / "alpaca" / "train.parquet")
    text = json.dumps(frame[["instruction", "input", "output"]].to_dict("records"), indent=4)
    path = tmp_path / "alpaca_data.json"
    path.write_text(text)
    if path.stat().st_size != 22_773_992:
        pytest.skip("another version of Alpaca")
    data = read_instructions(DataSpec(path=str(path)), data_root=None)
    pinned = content_of(DataSpec(), Path(str(DATA_ROOT)))
    assert data.identity["sha256"] == pinned
    assert (data.report.rows, data.report.empty) == (52_002, 28)
