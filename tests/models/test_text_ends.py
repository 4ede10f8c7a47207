"""How texts begin and end: what a tokenizer really does, and what training and models expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from harness.data.instructions import tokenize
from harness.data.rows import Instruction
from harness.errors import ModelError
from harness.models.checkpoint import ModelSpec, check_checkpoint
from harness.models.text_ends import bos_warning, check_open, describe_bos, text_ends
from harness.models.tokenizer_files import load_tokenizer
from tests.fixtures.tiny_checkpoint import edit_json, write_checkpoint
from tests.fixtures.tiny_models import shape

SPECIAL = ["<unk>", "<s>", "</s>", "<sep>"]


def byte_level(*pieces: str, bos: str | None = "<s>") -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that puts these special tokens around a text, `$A`."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    backend.add_special_tokens(SPECIAL)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces),
        pair="$A $B",
        special_tokens=[(word, index) for index, word in enumerate(SPECIAL)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token="</s>")


LIKE_LLAMA = byte_level("<s>", "$A")


@pytest.mark.parametrize(
    ("pieces", "opening", "closing", "described"),
    [
        (("<s>", "$A"), (1,), (), "token 1"),
        (("$A",), (), (), "none"),
        (("<s>", "<s>", "$A"), (1, 1), (), "tokens 1, 1"),
        (("<sep>", "$A"), (3,), (), "token 3"),
        (("<s>", "$A", "</s>"), (1,), (2,), "token 1"),
        (("$A", "<sep>"), (), (3,), "none"),
        (("<s>", "$A", "<sep>", "</s>"), (1,), (3, 2), "token 1"),
    ],
)
def test_ends_are_what_the_tokenizer_does_not_what_it_names(
    pieces: tuple[str, ...], opening: tuple[int, ...], closing: tuple[int, ...], described: str
) -> None:
    tokenizer = byte_level(*pieces)
    ends = text_ends(tokenizer)
    assert (ends.bos, ends.eos, ends.opening, ends.closing) == (1, 2, opening, closing)
    assert describe_bos(tokenizer) == described
    if closing:
        with pytest.raises(ModelError, match="appends .* cannot score .*; take it out of post_p"):
            check_open(tokenizer)
    else:
        check_open(tokenizer)


def test_a_loaded_tokenizer_keeps_nothing_of_being_looked_at() -> None:
    before = LIKE_LLAMA.backend_tokenizer.to_str()
    text_ends(LIKE_LLAMA)
    assert LIKE_LLAMA.backend_tokenizer.to_str() == before


def test_what_is_called_training_is_what_training_puts() -> None:
    for tokenizer in (LIKE_LLAMA, byte_level("$A"), byte_level("$A", bos=None)):
        ends = text_ends(tokenizer)
        (example,) = tokenize([Instruction("a", "", "b")], tokenizer, 10_000)
        start = len(ends.named_opening)
        assert example.token_ids[:start] == ends.named_opening
        assert example.token_ids[start] > len(SPECIAL)
        assert example.token_ids[-1] == ends.eos


def test_beginnings_that_agree_need_no_word() -> None:
    assert bos_warning(LIKE_LLAMA, LlamaConfig(bos_token_id=1)) is None
    assert bos_warning(byte_level("$A", bos=None), Qwen2Config(bos_token_id=1)) is None


@pytest.mark.parametrize(
    ("pieces", "scoring"),
    [(("$A",), "'text'"), (("<s>", "<s>", "$A"), "'<s> <s> text'")],
)
def test_unlike_beginnings_are_told_with_both_renderings(
    pieces: tuple[str, ...], scoring: str
) -> None:
    said = bos_warning(byte_level(*pieces), Qwen2Config(bos_token_id=1))
    assert said is not None
    assert "training and generation give the model '<s> text', log-likelihood scoring" in said
    assert scoring in said


def test_a_llama_tokenizer_without_bos_is_told_with_the_consequence() -> None:
    said = bos_warning(byte_level("$A"), LlamaConfig(bos_token_id=1))
    assert said is not None
    assert "puts no BOS before a text" in said
    assert "scores come out lower" in said


@pytest.mark.parametrize(("expected", "named"), [(7, "names token 7"), (None, "names none")])
def test_another_bos_than_the_models_is_told(expected: int | None, named: str) -> None:
    said = bos_warning(LIKE_LLAMA, LlamaConfig(bos_token_id=expected))
    assert said is not None
    assert said.startswith(f"the tokenizer puts token 1 before a text, but config.json {named}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer is that of `byte_level`, and names what LLaMA's does."""
    write_checkpoint(tmp_path)
    return tmp_path


def notes(folder: Path, *pieces: str, **named: object) -> list[str]:
    """What is told of a checkpoint whose tokenizer puts these tokens around a text."""
    numbers = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}}
            if piece == "$A"
            else {"SpecialToken": {"id": piece, "type_id": 0}}
            for piece in pieces
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]}
            for name, number in numbers.items()
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    edit_json(folder / "tokenizer_config.json", **named)
    return check_checkpoint(ModelSpec(path=str(folder), shape=shape()), folder)


def test_a_folder_like_llamas_needs_no_word(folder: Path) -> None:
    assert notes(folder, "<s>", "$A") == []


def test_the_folders_note_is_the_loaded_tokenizers(folder: Path) -> None:
    (told,) = notes(folder, "<s>", "<s>", "$A")
    tokenizer = load_tokenizer(folder, 61)
    assert told == bos_warning(tokenizer, LlamaConfig(bos_token_id=1))
    assert "'<s> <s> text'" in told


def test_advice_on_unlike_beginnings_is_true(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="llama", bos_token_id=1)
    assert "puts no BOS" in notes(folder, "$A")[0]
    assert notes(folder, "<s>", "$A") == []  # its post-processor puts what bos_token names


@pytest.mark.parametrize("value", [7, [5, 7]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_another_eos_than_the_models_is_told(folder: Path, name: str, value: object) -> None:
    edit_json(folder / name, eos_token_id=value)
    (told,) = notes(folder, "<s>", "$A")
    assert told.startswith("training ends a text with 'text </s>' (token 2), ")
    assert f"{name} names token {'5, 7' if isinstance(value, list) else 7} as its end" in told
    edit_json(folder / name, eos_token_id=2)
    assert notes(folder, "<s>", "$A") == []


def test_one_of_several_ends_of_the_model_is_right(folder: Path) -> None:
    edit_json(folder / "generation_config.json", eos_token_id=[2, 7])
    assert notes(folder, "<s>", "$A") == []


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("add_eos_token", True, "nothing behind a text"),
        ("add_bos_token", False, "a token before a text"),
    ],
)
def test_a_setting_that_is_not_read_is_told(
    folder: Path, setting: str, value: bool, said: str
) -> None:
    """transformers 5 leaves both aside where there is a tokenizer.json."""
    (told,) = notes(folder, "<s>", "$A", **{setting: value})
    assert told.startswith(f"tokenizer_config.json says {setting}: {str(value).lower()}, which is")
    assert told.endswith(said)
    ends = text_ends(load_tokenizer(folder, 61))
    assert (ends.opening, ends.closing) == ((1,), ())  # as the note says
    assert notes(folder, "<s>", "$A", **{setting: not value}) == []


def test_special_tokens_outside_that_no_text_gets_are_told(folder: Path) -> None:
    entry = {"id": 61, "content": "<far>", "single_word": False, "lstrip": False, "rstrip": False}
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append(entry | {"normalized": False, "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (told,) = notes(folder, "<s>", "$A", pad_token="<far>")
    assert told.startswith("1 special tokens of tokenizer.json lie outside of the model's vocab")
