"""Alpaca's instructions: put into the template, tokenised, batched.

The prompt is the two-form template of Stanford Alpaca, from `data/prompts.yaml`; the response
follows it with nothing between. No torch here: planning imports this file.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Protocol

from harness.data.rows import Instruction, Row, texts_of
from harness.data.sets import shuffled
from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TOKENIZE_ROWS = 2048
"""Rows given to the tokenizer at once: its records are about 100 bytes per token."""

Holes = tuple[tuple[int, int], ...]
"""Runs of tokens, in order: the first, and one past the last."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A tokenised row: BOS and prompt, then the response and EOS, cut to the maximal length.

    Of a conversation: up to the end of the assistant's last turn.
    """

    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    """Leading tokens that are not in the loss, BOS included; at most len(token_ids)."""
    holes: Holes = ()
    """Later tokens that are not in the loss, such as a user's second turn."""
    is_cut: bool = False
    """Whether tokens in the loss were cut off at the maximal length."""

    @property
    def num_labels(self) -> int:
        """Number of tokens in the loss; 0 where the prompt alone fills the maximal length."""
        held = sum(end - start for start, end in self.holes)
        return len(self.token_ids) - self.num_prompt_tokens - held


class Labelled(Protocol):
    """A sequence of tokens of which some are in the loss."""

    @property
    def token_ids(self) -> tuple[int, ...]: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def holes(self) -> Holes: ...


def label_runs(sequence: Labelled) -> Iterator[tuple[int, int]]:
    """Yields the runs of tokens in the loss: the first, and one past the last."""
    start = sequence.num_prompt_tokens
    for end, after in (*sequence.holes, (len(sequence.token_ids),) * 2):
        if start < end:
            yield start, end
        start = after


def epoch_batches(num_rows: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yields the rows of each optimizer batch; the last may be smaller.

    The order depends on `seed` and `epoch` alone: not on devices, micro-batches or other draws.
    """
    order = shuffled(num_rows, f"epoch/{seed}/{epoch}")
    for start in range(0, num_rows, batch_size):
        yield order[start : start + batch_size]


@functools.cache
def _templates() -> Mapping[str, str]:
    import yaml

    text = resources.files("harness.data").joinpath("prompts.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["training"])


def format_prompt(instruction: Row) -> str:
    """The prompt of a row; the response follows it directly."""
    assert isinstance(instruction, Instruction)
    # Not str.format: a row may hold braces.
    name = "with_input" if instruction.input else "without_input"
    head, rest = _templates()[name].split("{instruction}")
    if instruction.input:
        middle, tail = rest.split("{input}")
        rest = middle + instruction.input + tail
    return head + instruction.instruction + rest


def tokenize(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """BOS + tokens of (prompt + output as one text) + EOS, cut after `max_length` tokens.

    As many leading tokens count as prompt as the prompt alone has. LLaMA's tokenizer joins the
    colon that ends the prompt with a first "-" of a response (3.3% of Alpaca); that token then
    counts as prompt, as in the published training. A tokenizer without BOS gives none.

    Raises:
        ModelError: the tokenizer has no EOS, without which no answer would learn to end.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token; set eos_token in its "
            "tokenizer_config.json"
        )
    bos = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    examples = []
    for start in range(0, len(rows), TOKENIZE_ROWS):
        part = rows[start : start + TOKENIZE_ROWS]
        prompts = [format_prompt(row) for row in part]
        texts = [prompt + texts_of(row)[-1] for prompt, row in zip(prompts, part, strict=True)]
        encoded = zip(_encode(texts, tokenizer), _encode(prompts, tokenizer), strict=True)
        for whole, prompt_ids in encoded:
            token_ids = (*bos, *whole, tokenizer.eos_token_id)[:max_length]
            num_prompt_tokens = min(len(bos) + len(prompt_ids), len(token_ids))
            examples.append(Example(token_ids, num_prompt_tokens))
    if note := lost_note(sum(not example.num_labels for example in examples), len(examples)):
        logger.warning("%s (max_length %d)", note, max_length)
    return examples


def lost_note(lost: int, count: int) -> str | None:
    """What a reader must know of examples of which nothing is learned."""
    if not lost:
        return None
    return (
        f"{lost:,} of {count:,} examples have a prompt that fills max_length: nothing of them is "
        "trained on"
    )


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Plain tokens; a text that spells a special token gets its letters, not the token."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
