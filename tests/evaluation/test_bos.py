"""What a tokenizer really puts before a text, against what the model expects."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from harness.evaluation.bos import bos_warning, describe_bos, leading_tokens


def without_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.Sequence([])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def test_bos_is_what_the_tokenizer_does_not_what_it_names(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert leading_tokens(tokenizer) == (1,)
    assert describe_bos(tokenizer) == "token 1"
    bare = without_bos(tokenizer)
    assert bare.bos_token_id == 1
    assert describe_bos(bare) == "none"


def test_a_llama_tokenizer_without_bos_is_told_with_the_consequence(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    said = bos_warning(without_bos(tokenizer), LlamaConfig(bos_token_id=1))
    assert said is not None
    assert "puts no BOS before a text" in said
    assert "scores come out lower" in said
    assert bos_warning(tokenizer, LlamaConfig(bos_token_id=1)) is None


@pytest.mark.parametrize(("expected", "named"), [(7, "names token 7"), (None, "names none")])
def test_another_bos_than_the_models_is_told(
    tokenizer: PreTrainedTokenizerFast, expected: int | None, named: str
) -> None:
    said = bos_warning(tokenizer, LlamaConfig(bos_token_id=expected))
    assert said is not None
    assert said.startswith(f"the tokenizer puts token 1 before a text, but config.json {named}")


def test_families_that_were_trained_without_bos_need_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert bos_warning(without_bos(tokenizer), Qwen2Config(bos_token_id=1)) is None
