"""Answers of a batch are those that transformers generates one by one, and end as they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from harness.answers.generation import Answers, generate_answers
from harness.answers.prompts import Asked, PromptForm, ask
from harness.answers.store import COLUMNS, GREEDY, Entry
from harness.errors import EvaluationError
from tests.fixtures.chat_models import chat_model, chat_tokenizer

ENTRIES = [
    Entry(
        str(number), f"How many {'apples ' * (1 + 3 * number)}are left?", category="c", dataset="d"
    )
    for number in range(7)
]
SHORT = replace(GREEDY, max_new_tokens=12)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return chat_model("llama3").eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return chat_tokenizer("llama3")


@pytest.fixture(scope="module")
def asked(tokenizer: PreTrainedTokenizerFast) -> Asked:
    return ask(ENTRIES, PromptForm("chat"), tokenizer, "set")


def one_by_one(
    model: PreTrainedModel, asked: Asked, ends: frozenset[int]
) -> list[tuple[list[int], bool]]:
    """Each answer's tokens as transformers generates them, and whether it ended."""
    found = []
    for prompt in asked.prompts:
        tokens = torch.tensor([prompt])
        whole = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=12,
            eos_token_id=sorted(ends), pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        ended = whole[-1] in ends
        found.append((whole[: len(whole) - ended], ended))
    return found


def generated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Asked, **settings: object
) -> Answers:
    decoding = replace(SHORT, **settings)  # type: ignore[arg-type]
    return generate_answers(model, tokenizer, ENTRIES, asked, decoding, precision="fp32")


def test_a_batch_answers_as_one_by_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Asked
) -> None:
    expected = one_by_one(model, asked, asked.end_tokens)
    # A token that some answers hold ends them, as an end-of-turn token would.
    common = expected[0][0][4]
    ends = replace(asked, end_tokens=asked.end_tokens | {common})
    for prompts in (asked, ends):
        expected = one_by_one(model, prompts, prompts.end_tokens)
        frame = generated(model, tokenizer, prompts).frame
        assert list(frame.columns) == list(COLUMNS)
        assert list(frame["id"]) == [entry.id for entry in ENTRIES]
        assert list(frame["num_tokens"]) == [len(tokens) for tokens, _ in expected]
        reasons = ["eos" if ended else "length" for _, ended in expected]
        assert list(frame["stop_reason"]) == reasons
        texts = [
            tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for tokens, _ in expected
        ]
        assert list(frame["output"]) == texts
    assert "eos" in reasons


def test_what_is_drawn_follows_seed_and_id_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Asked
) -> None:
    drawn = [
        list(generated(model, tokenizer, asked, temperature=1.0, seed=seed).frame["output"])
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != list(generated(model, tokenizer, asked).frame["output"])


def test_a_short_model_cuts_prompts_and_answers_and_says_so(
    tokenizer: PreTrainedTokenizerFast, asked: Asked
) -> None:
    model = chat_model("llama3").eval()
    model.config.max_position_embeddings = 128
    answers = generated(model, tokenizer, asked, max_new_tokens=100)
    assert answers.max_new_tokens == 64
    assert answers.num_cut == sum(len(prompt) > 64 for prompt in asked.prompts) > 0
    assert answers.frame["num_tokens"].max() <= 64


def test_a_model_without_numbers_is_one_line(
    tokenizer: PreTrainedTokenizerFast, asked: Asked
) -> None:
    model = chat_model("llama3").eval()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="logits are not numbers"):
        generated(model, tokenizer, asked)
