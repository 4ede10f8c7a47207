"""Instructions: reading, the template, what is learned of a row, fractions and batches."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import harness
import harness.data.instructions
from harness.data.instructions import epoch_batches, tokenize
from harness.data.rows import Completion, Instruction
from harness.data.sets import read_instructions
from harness.data.spec import DataSpec
from harness.data.templates import format_prompt
from harness.data.turns import columns_of
from harness.errors import ModelError
from tests.fixtures.real_data import DATA_ROOT

PACKAGE = Path(harness.__file__).parent
LOCAL = DataSpec(path="rows.parquet")

ROWS = tuple(
    Instruction(f"Name the number after {n}.", "" if n % 3 else f"It is {n}.", f"{n + 1}")
    for n in range(40)
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(PACKAGE / "demo/data/model")


def frame(rows: tuple[Instruction, ...] = ROWS) -> pd.DataFrame:
    return pd.DataFrame([columns_of(row) for row in rows])


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


# Batches


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


def test_a_completion_is_whole_in_the_loss_wherever_the_prompt_ends(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Also where a token reaches over the edge, such as that of a blank and a word."""
    text = "Horas led the pony out of the stable."
    for place in range(len(text)):
        (example,) = tokenize([Completion(text[:place], text[place:])], tokenizer, 100)
        told = tokenizer.decode(example.token_ids[: example.num_prompt_tokens])
        assert text[:place].startswith(told.removeprefix(str(tokenizer.bos_token)).strip())
        assert len(tokenizer.encode(text[:place], add_special_tokens=False)) >= (
            example.num_prompt_tokens - 1
        )


@pytest.mark.parametrize(
    "template", [None, "Q: {{ prompt }}\nA:{% generation %}{{ completion }}{% endgeneration %}"]
)
def test_a_prompt_is_in_the_loss_where_the_data_say_all(
    tokenizer: PreTrainedTokenizerBase, template: str | None
) -> None:
    row = Completion("How many?", " Three.")
    (part,) = tokenize([row], tokenizer, 512, template=template)
    (whole,) = tokenize([row], tokenizer, 512, template=template, all_in_loss=True)
    assert part.num_prompt_tokens > 1
    assert whole.num_prompt_tokens == 1  # BOS, which nothing predicts
    assert whole.holes == ()
    text = "How many? Three." if template is None else "Q: How many?\nA: Three."
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(whole.token_ids[1:-1]) == expected
    (cut,) = tokenize([row], tokenizer, 4, template=template, all_in_loss=True)
    assert cut.is_cut
    assert cut.token_ids == whole.token_ids[:4]


def test_what_is_in_the_loss_is_part_of_the_id_where_it_is_stated() -> None:
    rows = DataSpec(path="rows.jsonl")
    assert rows.stated == DataSpec(path="rows.jsonl", loss="response").stated == {}
    assert DataSpec(path="rows.jsonl", loss="all").stated == {"loss": "all"}
    assert "loss" not in rows.model_dump()
    with pytest.raises(ValidationError, match="'response' or 'all'"):
        DataSpec.model_validate({"path": "rows.jsonl", "loss": "al"})
