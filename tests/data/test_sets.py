"""Training sets: what a grid names, what is read of it, fractions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

import harness
from harness.data.rows import Conversation, Instruction, ScienceQuestion, Turn
from harness.data.sets import (
    Instructions,
    choose,
    content_of,
    count_rows,
    inspect_data,
    num_examples,
    read_chosen,
    read_instructions,
    rows_sha256,
    shuffled,
)
from harness.data.spec import DataSpec, data_file
from harness.data.turns import columns_of
from harness.errors import DataError, ZbenchError
from harness.readers.files import Unreadable
from harness.readers.pictures import Picture
from harness.records.files import sha256_of_file
from tests.fixtures.picture_files import drawn

PACKAGE = Path(harness.__file__).parent
LOCAL = DataSpec(path="rows.parquet")
COMMIT = "0123456789abcdef0123456789abcdef01234567"

GOLDEN_FRACTION = [6, 11, 0, 10, 2, 9, 7, 8, 5, 3, 4, 1]
GOLDEN_EPOCH = [8, 4, 10, 2, 0, 9, 1, 7, 5, 3, 11, 6]
GOLDEN_ROWS = "52eff3701026363e272ba61e11ed1691cfe7fc5d59bd5bea31499cc1bbc9fdd6"

ROWS = tuple(
    Instruction(f"Name the number after {n}.", "" if n % 3 else f"It is {n}.", f"{n + 1}")
    for n in range(40)
)


def frame(rows: tuple[Instruction, ...] = ROWS) -> pd.DataFrame:
    return pd.DataFrame([columns_of(row) for row in rows])


def read_local(folder: Path, spec: DataSpec = LOCAL) -> Instructions:
    return read_instructions(spec, data_root=folder)


# Fractions and batches


def test_fraction_is_rounded_to_the_nearest_row() -> None:
    assert [num_examples(f, 52_002) for f in (0.01, 0.1, 0.3, 0.5, 1.0)] == [
        520,
        5200,
        15_601,
        26_001,
        52_002,
    ]
    assert (num_examples(0.5, 5), num_examples(0.5, 7)) == (2, 4)  # half goes to the even one


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_smaller_fraction_begins_the_larger(seed: int) -> None:
    chosen = [choose(ROWS, fraction, seed) for fraction in (0.05, 0.3, 0.5, 1.0)]
    for small, large in zip(chosen, chosen[1:], strict=False):
        assert large[: len(small)] == small
    assert sorted(chosen[-1], key=ROWS.index) == list(ROWS)


def test_seeds_choose_differently() -> None:
    assert set(choose(ROWS, 0.5, 0)) != set(choose(ROWS, 0.5, 1))


def test_permutation_never_changes() -> None:
    assert shuffled(12, "fraction/0") == GOLDEN_FRACTION
    assert shuffled(12, "epoch/0/1") == GOLDEN_EPOCH


def test_fraction_without_a_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"fraction 0\.01 of 40 rows selects no .* is 0\.025"):
        choose(ROWS, 0.01, 0)


# Reading


def test_rows_are_counted_as_stated_or_from_the_footer(tmp_path: Path) -> None:
    assert count_rows(LOCAL, tmp_path) is None
    frame().to_parquet(tmp_path / "rows.parquet")
    assert count_rows(LOCAL, tmp_path) == len(ROWS)
    assert count_rows(LOCAL, None) is None
    assert count_rows(DataSpec(path="rows.parquet", num_rows=7), tmp_path) == 7
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    assert count_rows(LOCAL, tmp_path) is None


def test_parquet_gives_its_rows(tmp_path: Path) -> None:
    frame().assign(text="not read").to_parquet(tmp_path / "rows.parquet")
    data = read_local(tmp_path)
    assert data.rows == ROWS
    assert data.identity == {
        "source": "rows.parquet",
        "revision": None,
        "commit": None,
        "sha256": rows_sha256(ROWS),
        "num_rows": 40,
    }


def test_identity_is_of_the_rows_and_not_of_the_file(tmp_path: Path) -> None:
    identities = set()
    for compression, columns in (("zstd", list("ioI")), (None, list("Iio"))):
        names = [{"I": "instruction", "i": "input", "o": "output"}[letter] for letter in columns]
        path = tmp_path / "rows.parquet"
        frame()[names].to_parquet(path, compression=compression, row_group_size=7)
        identities.add(read_local(tmp_path).identity["sha256"])
    assert identities == {rows_sha256(ROWS)}


def test_identity_changes_with_every_cell_and_the_order() -> None:
    row = Instruction("a", "b", "c")
    others = [Instruction("a", "bc", ""), Instruction("ab", "", "c"), Instruction("a", "b", "d")]
    assert len({rows_sha256([each]) for each in (row, *others)}) == 4
    assert rows_sha256([row, others[0]]) != rows_sha256([others[0], row])


def test_identity_never_changes() -> None:
    assert rows_sha256([Instruction("Sag „é“", "", "x\ny")]) == GOLDEN_ROWS


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"rows\.parquet: no such file; correct the path, or put"):
        read_local(tmp_path)


def test_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(Unreadable, match=r"rows\.parquet: is empty \(0 bytes\)"):
        read_local(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "rows.parquet"
    frame().to_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(Unreadable, match=r"rows\.parquet: is a parquet file whose end") as caught:
        read_local(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame().to_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[30:200] = bytes(170)
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=r"rows\.parquet: is damaged parquet"):
        read_local(tmp_path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    frame().drop(columns=["input", "output"]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"no columns of a training row \(it has instruction\); zb"):
        read_local(tmp_path)


def test_row_without_a_value_is_named(tmp_path: Path) -> None:
    rows = frame().astype(object)
    rows.loc[7, "output"] = None
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(
        DataError, match=r"1 row cannot .* \(the first is 0\): row 7: output is null"
    ):
        read_local(tmp_path)


def test_column_of_numbers_is_named(tmp_path: Path) -> None:
    frame().assign(output=1).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"row 0: output is a number \(1\); row 1: .*; row 2: "):
        read_local(tmp_path)


def test_file_without_rows_is_named(tmp_path: Path) -> None:
    frame().head(0).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="has no rows"):
        read_local(tmp_path)


def test_unexpected_size_is_named(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="has 40 rows, the grid states num_rows 52002"):
        read_local(tmp_path, DataSpec(path="rows.parquet", num_rows=52_002))


READ_HUB = """
import json, sys
from harness.data.sets import read_instructions
from harness.errors import DataError, ZbenchError
from harness.data.spec import DataSpec
from harness.data.turns import columns_of
try:
    spec = DataSpec(source="someone/rows", **json.loads(sys.argv[1]))
    data = read_instructions(spec, data_root=None)
    print(json.dumps([len(data.rows), data.identity]))
except DataError as fault:
    print(json.dumps(str(fault)))
"""


def read_hub(cache: Path, **settings: object) -> object:
    """Reads a hub data set in a process of its own: the hub's settings are read at import."""
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ_HUB, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=PACKAGE.parent,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_hub_data_is_read_from_the_cache_with_its_commit(tmp_path: Path) -> None:
    repository = tmp_path / "hub/datasets--someone--rows"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT / "data"
    folder.mkdir(parents=True)
    frame().to_parquet(folder / "train-00000-of-00001.parquet")
    assert read_hub(tmp_path) == [
        40,
        {
            "source": "someone/rows",
            "revision": "main",
            "commit": COMMIT,
            "sha256": rows_sha256(ROWS),
            "num_rows": 40,
        },
    ]


def test_hub_data_may_hold_pictures_as_datasets_writes_them(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, List, Value

    repository = tmp_path / "hub/datasets--someone--rows"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT / "data"
    folder.mkdir(parents=True)
    row = {"image": {"bytes": drawn(1), "path": "image.png"}, "question": "Which?", "hint": "",
           "choices": ["a", "b"], "answer": 1}  # fmt: skip
    features = Features(image=Image(), question=Value("string"), hint=Value("string"),
                        choices=List(Value("string")), answer=Value("int8"))  # fmt: skip
    rows = [row, row | {"image": None}]
    Dataset.from_list(rows, features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    number, identity = read_hub(tmp_path)  # type: ignore[misc]
    question = ScienceQuestion("Which?", ("a", "b"), 1)
    with_picture = replace(question, image=Picture.of(drawn(1)))
    assert (number, identity["sha256"]) == (2, rows_sha256([with_picture, question]))


def test_of_hub_data_subset_split_and_columns_are_chosen(tmp_path: Path) -> None:
    repository = tmp_path / "hub/datasets--someone--rows"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    (folder / "chats").mkdir(parents=True)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    chats = pd.DataFrame({"messages": [turns] * 3, "score": [1.0, 2.0, 3.0]})
    chats.to_parquet(folder / "chats" / "test-0.parquet")
    frame().rename(columns={"output": "answer"}).to_parquet(folder / "train.parquet")
    card = "configs: [{config_name: chats, data_files: [{split: test, path: chats/*.parquet}]}, "
    card += "{config_name: plain, data_files: [{split: train, path: train.parquet}]}]"
    (folder / "README.md").write_text(f"---\n{card}\n---\n")
    content = rows_sha256([Conversation((Turn("user", "q"), Turn("assistant", "a")))] * 2)
    found = read_hub(tmp_path, subset="chats", split="test", where="score > 1")
    assert found == [2, {"source": "someone/rows", "revision": "main", "commit": COMMIT,
                         "sha256": content, "num_rows": 2}]  # fmt: skip
    mapped = read_hub(tmp_path, subset="plain", columns={"output": "answer"})
    assert isinstance(mapped, list)
    assert mapped[1]["sha256"] == rows_sha256(ROWS)
    assert "has no readable train split" in str(read_hub(tmp_path, subset="chats"))
    assert "(it has instruction, input, answer)" in str(read_hub(tmp_path, subset="plain"))


def test_hub_data_without_network_says_what_to_put_where(tmp_path: Path) -> None:
    message = read_hub(tmp_path)
    assert message == (
        "someone/rows@main: no network and no copy in the hub cache; fetch it where there is "
        "network (`zbench prefetch GRID --to DIR`) and give --data-root DIR, or give its parquet "
        "file as data.path"
    )


# What a grid names


def test_without_source_and_path_it_is_alpaca() -> None:
    spec = DataSpec()
    assert (spec.source, spec.path) == ("tatsu-lab/alpaca", "alpaca/train.parquet")
    assert DataSpec(source="tatsu-lab/alpaca") == spec
    assert DataSpec(num_rows=5).source == "tatsu-lab/alpaca"
    assert DataSpec.model_validate(spec.model_dump()) == spec


def test_another_set_of_the_hub_has_no_file_of_alpacas() -> None:
    assert DataSpec(source="lab/mine").path is None
    assert data_file(DataSpec(source="lab/mine"), Path("/root")) is None


def test_a_path_alone_is_a_file_of_ones_own() -> None:
    assert DataSpec(path="mine.parquet").source is None
    assert DataSpec(path="alpaca/train.parquet").source is None
    assert DataSpec(path="mine.parquet", source="lab/mine").source == "lab/mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": None}, "needs `source`"),
        ({"source": None, "path": None}, "needs `source`"),
        ({"source": "mine.parquet"}, "a file of your own is `path`"),
        ({"source": "data/mine.jsonl"}, "a file of your own is `path`"),
        ({"source": "/data/mine"}, "owner/name"),
        ({"source": "a/b/c"}, "owner/name"),
        ({"source": ""}, "owner/name"),
        ({"path": ""}, "is no path"),
        ({"path": "a\0b"}, "is no path"),
        ({"path": "x" * 5000}, "is no path"),
    ],
)
def test_what_names_no_data_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSpec.model_validate(given)


def test_paths_are_absolute_or_of_home_or_under_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_file(DataSpec(path="~/a.parquet"), None) == tmp_path / "a.parquet"
    assert data_file(DataSpec(path="/a.parquet"), tmp_path) == Path("/a.parquet")
    assert data_file(DataSpec(path="a.parquet"), tmp_path) == tmp_path / "a.parquet"
    assert data_file(DataSpec(path="a.parquet"), None) is None


# Checked before anything runs


def test_inspecting_says_rows_and_content(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "rows.parquet")
    facts = inspect_data(LOCAL, tmp_path)
    assert (facts.rows, facts.path) == (40, tmp_path / "rows.parquet")
    assert facts.sha256 == sha256_of_file(tmp_path / "rows.parquet")
    assert content_of(LOCAL, tmp_path) == rows_sha256(ROWS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.head(0), "has no rows|not text"),
        (lambda rows: rows.assign(output=None), "at least 3 rows .* row 0: output is null"),
        (lambda rows: rows.assign(output=[b"x"] * 40), "column output holds binary"),
        (lambda rows: rows.rename(columns={"output": "answer"}), "{output: answer}` would do"),
        (lambda rows: rows.astype(object).replace("7", None), "row 6: output is null"),
        (lambda rows: rows.head(39), "has 39 rows, the grid states num_rows 40"),
    ],
)
def test_inspecting_refuses_what_training_would(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    change(frame()).to_parquet(tmp_path / "rows.parquet")
    spec = DataSpec(path="rows.parquet", num_rows=40)
    for check in (inspect_data, lambda spec, root: read_instructions(spec, data_root=root)):
        with pytest.raises(ZbenchError, match=said) as caught:
            check(spec, tmp_path)
        assert str(caught.value).startswith(str(tmp_path / "rows.parquet"))


def test_a_relative_path_without_a_data_root_is_told() -> None:
    with pytest.raises(DataError, match=r"data\.path: rows\.parquet is relative; --data-root"):
        inspect_data(LOCAL, None)


def test_hub_data_that_cannot_be_had_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="lab/mine@main: no network and no copy in the hub cache"):
        inspect_data(DataSpec(source="lab/mine"), tmp_path)
    (tmp_path / "datasets--lab--mine" / "snapshots" / "abc" / "data").mkdir(parents=True)
    assert inspect_data(DataSpec(source="lab/mine", num_rows=3), tmp_path).rows == 3


def test_of_a_large_set_the_same_rows_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame().to_parquet(tmp_path / "rows.parquet", row_group_size=7)
    whole = read_chosen(LOCAL, 0.3, 1, tmp_path)
    monkeypatch.setattr("harness.data.sets.WHOLE_ROWS", 10)
    assert read_chosen(LOCAL, 0.3, 1, tmp_path) == whole
    assert whole.rows == choose(ROWS, 0.3, 1)
    assert whole.file_sha256 == sha256_of_file(tmp_path / "rows.parquet")
    assert whole.identity["sha256"] == rows_sha256(ROWS)


def test_the_first_of_an_order_are_those_of_the_whole_order() -> None:
    assert shuffled(2000, "fraction/3", first=7) == shuffled(2000, "fraction/3")[:7]
    assert shuffled(20, "fraction/3", first=7) == shuffled(20, "fraction/3")[:7]


def test_equal_rows_in_a_row_have_the_hash_of_each() -> None:
    row = Instruction("a", "", "b")
    lines = b'["a","","b"]\n' * 3 + b'["b","","b"]\n'
    rows = [row, row, row, replace(row, instruction="b")]
    assert rows_sha256(rows) == hashlib.sha256(lines).hexdigest()
