"""Instructions: reading, the template, what is learned of a row, fractions and batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import harness
import harness.data.instructions
from harness.data.instructions import (
    DataSpec,
    Instruction,
    choose,
    count_rows,
    epoch_batches,
    format_prompt,
    num_examples,
    read_instructions,
    rows_sha256,
    shuffled,
    tokenize,
)
from harness.errors import DataError, ModelError
from tests.fixtures.real_data import DATA_ROOT

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


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(PACKAGE / "demo/data/model")


def frame(rows: tuple[Instruction, ...] = ROWS) -> pd.DataFrame:
    return pd.DataFrame([vars(row) for row in rows])


def read_local(folder: Path, spec: DataSpec = LOCAL) -> harness.data.instructions.Instructions:
    return read_instructions(spec, data_root=folder)


# The template


def test_prompt_without_input() -> None:
    assert format_prompt(Instruction("Add 2 and 2.", "", "4")) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd 2 and 2.\n\n### Response:"
    )


def test_prompt_with_input() -> None:
    assert format_prompt(Instruction("Add them.", "2 and 2", "4")) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Add them.\n\n### Input:\n2 and 2\n\n### Response:"
    )


def test_braces_in_a_row_are_text() -> None:
    prompt = format_prompt(Instruction("Fill {input} and {0}", "{instruction}", ""))
    assert "### Instruction:\nFill {input} and {0}\n\n### Input:\n{instruction}\n\n" in prompt


# What is learned of a row


def test_example_is_bos_prompt_response_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = tokenize([Instruction("Count.", "", "One two three.")], tokenizer, 512)
    assert example.token_ids[0] == tokenizer.bos_token_id
    assert example.token_ids[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(example.token_ids[1:-1])
    assert text == format_prompt(Instruction("Count.", "", "")) + "One two three."


def test_labels_are_the_response_and_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = tokenize([Instruction("Count.", "", " One two three.")], tokenizer, 512)
    learned = example.token_ids[example.num_prompt_tokens :]
    assert tokenizer.decode(learned) == " One two three." + tokenizer.eos_token
    assert example.num_labels == len(learned)


def test_empty_response_learns_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = tokenize([Instruction("Say nothing.", "", "")], tokenizer, 512)
    assert example.token_ids[example.num_prompt_tokens :] == (tokenizer.eos_token_id,)


def test_long_row_is_cut_without_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Instruction("Count.", "", " one two" * 200)
    (whole,) = tokenize([row], tokenizer, 10_000)
    (cut,) = tokenize([row], tokenizer, 100)
    assert cut.token_ids == whole.token_ids[:100]
    assert cut.num_labels == 100 - cut.num_prompt_tokens > 0


def test_row_with_a_prompt_beyond_the_limit_learns_nothing(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Instruction("word " * 200, "", "yes"), Instruction("Count.", "", "one")]
    long, short = tokenize(rows, tokenizer, 100)
    assert (len(long.token_ids), long.num_prompt_tokens, long.num_labels) == (100, 100, 0)
    assert short.num_labels > 0
    assert "1 of 2 examples" in caplog.text


def test_special_token_in_a_text_stays_text(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = tokenize([Instruction("Close the tag.", "", "a </s> b")], tokenizer, 512)
    assert example.token_ids.count(tokenizer.eos_token_id) == 1


def test_tokenizing_in_parts_changes_nothing(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenize(ROWS, tokenizer, 64)
    monkeypatch.setattr(harness.data.instructions, "TOKENIZE_ROWS", 7)
    assert tokenize(ROWS, tokenizer, 64) == whole


def test_tokenizer_without_eos_is_refused() -> None:
    bare = AutoTokenizer.from_pretrained(PACKAGE / "demo/data/model", eos_token=None)
    with pytest.raises(ModelError, match="no EOS token; set eos_token"):
        tokenize(ROWS, bare, 64)


@pytest.mark.skipif(DATA_ROOT is None, reason="needs the real tokenizer: set ZBENCH_DATA_ROOT")
def test_token_across_the_border_counts_as_prompt() -> None:
    assert DATA_ROOT is not None
    llama = AutoTokenizer.from_pretrained(Path(DATA_ROOT) / "llama_tokenizer")
    dash, plain = tokenize(
        [Instruction("List.", "", "- one"), Instruction("List.", "", "one")], llama, 512
    )
    assert dash.num_prompt_tokens == plain.num_prompt_tokens
    # LLaMA's tokenizer has a piece ":-".
    assert llama.convert_ids_to_tokens(dash.token_ids[dash.num_prompt_tokens - 1]) == ":-"
    assert llama.convert_ids_to_tokens(plain.token_ids[plain.num_prompt_tokens - 1]) == ":"


@pytest.mark.slow
@pytest.mark.skipif(DATA_ROOT is None, reason="needs real Alpaca: set ZBENCH_DATA_ROOT")
def test_alpaca_has_the_published_size() -> None:
    assert DATA_ROOT is not None
    spec = DataSpec(num_rows=52_002)
    data = read_instructions(spec, data_root=Path(DATA_ROOT))
    llama = AutoTokenizer.from_pretrained(Path(DATA_ROOT) / "llama_tokenizer")
    examples = tokenize(data.rows, llama, 512)
    lengths = pd.Series([len(example.token_ids) for example in examples])
    assert lengths.sum() == 6_600_133
    assert (round(lengths.mean()), round(lengths.quantile(0.99))) == (127, 362)
    assert sum(example.num_labels for example in examples) / lengths.sum() == pytest.approx(
        0.5146, abs=1e-4
    )
    assert sum(example.num_labels == 0 for example in examples) == 1
    assert sum(len(example.token_ids) > 512 for example in tokenize(data.rows, llama, 10**6)) == 97


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


def test_epoch_has_each_row_once() -> None:
    batches = list(epoch_batches(23, 5, seed=0, epoch=0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(sum(batches, [])) == list(range(23))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {
        tuple(sum(epoch_batches(23, 5, seed=seed, epoch=epoch), []))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


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
    with pytest.raises(DataError, match=r"rows\.parquet: no such file; put the parquet there"):
        read_local(tmp_path)


def test_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(DataError, match=r"rows\.parquet: is empty \(0 bytes\); fetch it again"):
        read_local(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "rows.parquet"
    frame().to_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"rows\.parquet: is not a whole parquet file") as caught:
        read_local(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame().to_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[30:200] = bytes(170)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.parquet: is not a whole parquet file"):
        read_local(tmp_path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    frame().drop(columns=["input", "output"]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"lacks the columns input, output \(it has instruction\)"):
        read_local(tmp_path)


def test_row_without_a_value_is_named(tmp_path: Path) -> None:
    rows = frame().astype(object)
    rows.loc[7, "output"] = None
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"row 7 \(the first is 0\) has no output"):
        read_local(tmp_path)


def test_column_of_numbers_is_named(tmp_path: Path) -> None:
    frame().assign(output=1).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="column output holds int64, not text"):
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
from harness.data.instructions import read_instructions
from harness.errors import DataError
from harness.data.instructions import DataSpec
try:
    data = read_instructions(DataSpec(source="someone/rows"), data_root=None)
    print(json.dumps([len(data.rows), data.identity]))
except DataError as fault:
    print(json.dumps(str(fault)))
"""


def read_hub(cache: Path) -> object:
    """Reads a hub data set in a process of its own: the hub's settings are read at import."""
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ_HUB],
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


def test_hub_data_without_network_says_what_to_put_where(tmp_path: Path) -> None:
    message = read_hub(tmp_path)
    assert message == (
        "someone/rows@main: no network and no copy in the hub cache; fetch it where there is "
        "network (`hf download --repo-type dataset someone/rows`), or put the parquet at "
        "alpaca/train.parquet in a folder given with --data-root"
    )
