"""Training examples: rows put into their template, tokenised, batched.

No torch here: planning imports this file.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING, Protocol

from harness.data.encoding import Runs, decode, encode_renderings
from harness.data.marks import joined
from harness.data.rows import Completion, Row, picture_of
from harness.data.sets import shuffled
from harness.data.templates import (
    PAIRS,
    fault_line,
    opens_with_bos,
    prompt_and_response,
    row_template,
    template_of,
)
from harness.data.turns import RowFault
from harness.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TOKENIZE_ROWS = 2048
"""Rows given to the tokenizer at once: its records are about 100 bytes per token."""

Holes = Runs
"""Runs of tokens that are not in the loss, in order."""

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
    picture: str | None = None
    """The SHA-256 of the row's picture."""

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


def tokenize(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    template: str | None = None,
    system: str | None = None,
    all_in_loss: bool = False,
    number_of: Callable[[int], int] = int,
    place: str = "data",
) -> list[Example]:
    """The rows' tokens, cut after `max_length`.

    In the templates of `PAIRS`: BOS + tokens of (prompt + output as one text) + EOS. As
    many leading tokens count as prompt as the prompt alone has. LLaMA's tokenizer joins the colon
    that ends the prompt with a first "-" of a response (3.3% of Alpaca); that token then counts as
    prompt, as in the published training. Of a prompt and a completion, such a token is in the loss:
    a prompt that ends with a blank would else take the completion's first word. A tokenizer
    without BOS gives none.

    In a chat template or a Jinja file: what it writes, up to the end of the assistant's last turn;
    in the loss are the assistant's turns with their end-of-turn tokens, exactly. EOS follows where
    the template does not end the last turn.

    Args:
        rows: all of one form.
        template: `alpaca`, `chat`, or a Jinja text; by default the one of the rows' form.
        system: the system text of conversations without one.
        all_in_loss: whether the prompt is in the loss too; the text is then encoded as one.
        number_of: gives a row's number in its set, for a fault, where these are some of it.
        place: what the rows are called in a fault.

    Raises:
        ModelError: the tokenizer has no EOS, without which no answer would learn to end; or no chat
            template, where one is asked for.
        DataError: a row cannot be put into the template.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token; set eos_token in its "
            "tokenizer_config.json"
        )
    name = template_of(rows[0], template) if rows else None
    write = _pairs if name in PAIRS else partial(_renderings, all_in_loss=all_in_loss)
    examples: list[Example] = []
    for start in range(0, len(rows), TOKENIZE_ROWS):
        part = rows[start : start + TOKENIZE_ROWS]
        for row, found in enumerate(write(part, tokenizer, name, system), start):
            if isinstance(found, RowFault):
                raise DataError(fault_line(number_of(row), found, place))
            ids, runs = found
            example = cut(ids, ((0, len(ids)),) if all_in_loss else runs, max_length)
            picture = picture_of(rows[row])
            examples.append(replace(example, picture=picture.sha256) if picture else example)
    for note in (
        lost_note(sum(not example.num_labels for example in examples), len(examples)),
        cut_note(count_cut(examples), len(examples)),
    ):
        if note:
            logger.warning("%s (max_length %d)", note, max_length)
    return examples


Encoded = tuple[Sequence[int], Runs]
"""All tokens of a row, and the runs of them that are in the loss."""


def _pairs(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: str | None,
    system: str | None,
) -> Iterator[Encoded | RowFault]:
    """Yields rows that are a prompt and a response."""
    bos = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    try:
        pairs = [prompt_and_response(row, template, system) for row in rows]
    except RowFault as fault:  # of the rows' form, so that all have it
        yield fault
        return
    prompts = [prompt for prompt, _ in pairs]
    texts = [prompt + response for prompt, response in pairs]
    encoded = zip(rows, _encode(texts, tokenizer), _encode(prompts, tokenizer), strict=True)
    for row, whole, prompt_ids in encoded:
        token_ids = (*bos, *whole, tokenizer.eos_token_id)
        held = len(prompt_ids)
        if isinstance(row, Completion):
            held = len(commonprefix((whole, prompt_ids)))
        yield token_ids, ((len(bos) + held, len(token_ids)),)


def _renderings(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: str | None,
    system: str | None,
    *,
    all_in_loss: bool = False,
) -> Iterator[Encoded | RowFault]:
    """Yields rows in a chat template or a Jinja file, up to the first that does not go into it."""
    assert template is not None
    filled, renderings = row_template(template, tokenizer, system), []
    refusal: RowFault | None = None
    for row in rows:
        try:
            one = filled.rendering(row)
            whole = ((0, len(one.text)),)  # no token is cut where the response begins
            renderings.append(replace(one, spans=whole) if all_in_loss else one)
        except RowFault as fault:
            refusal = fault
            break
    encoded = encode_renderings(renderings, tokenizer)
    for rendering, found in zip(renderings, encoded, strict=True):
        if isinstance(found, RowFault):
            yield found
            continue
        ids, runs = found
        if opens_with_bos(rendering, template, tokenizer):
            ids = [tokenizer.bos_token_id, *ids]
            runs = tuple((start + 1, end + 1) for start, end in runs)
        if not rendering.is_closed and rendering.spans:
            size = len(ids)
            runs = tuple(joined((*runs, (size, size + 1))))
            ids = [*ids, tokenizer.eos_token_id]
        yield ids, runs
    if refusal is not None:
        yield refusal


def cut(token_ids: Sequence[int], runs: Runs, max_length: int) -> Example:
    """An example of at most so many tokens, which ends with a token in the loss if any is.

    The first token is never in the loss: nothing predicts it.
    """
    size = min(len(token_ids), max_length)
    kept = [(max(start, 1), min(end, size)) for start, end in runs]
    kept = [(start, end) for start, end in kept if start < end]
    is_cut = any(end > size for _, end in runs)
    if not kept:
        return Example(tuple(token_ids[:size]), size, is_cut=is_cut)
    holes = tuple(
        (before[1], after[0]) for before, after in itertools.pairwise(kept) if before[1] < after[0]
    )
    return Example(tuple(token_ids[: kept[-1][1]]), kept[0][0], holes, is_cut)


DROPPED = Example((), 0, is_cut=True)
"""In the place of a row that is cut, where such rows are not trained on."""


def drop_note(number: int, count: int) -> str | None:
    """What a reader must know of examples that would be cut."""
    if not number:
        return None
    return f"{number:,} of {count:,} examples are longer than max_length and dropped"


def count_cut(examples: Sequence[Example]) -> int:
    """Examples of which something is learned, but not the end."""
    return sum(example.is_cut and example.num_labels > 0 for example in examples)


def cut_note(number: int, count: int) -> str | None:
    """What a reader must know of examples whose end is not learned."""
    if not number:
        return None
    return f"{number:,} of {count:,} examples are cut at max_length: their end is not trained on"


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


@dataclass(frozen=True)
class ShownToken:
    """A token of a training row as the model sees it."""

    id: int
    text: str
    """Its own text, such as `<|im_end|>` or ` the`. Of tokens that spell one character together the
    last has it, the others have `\\ufffd`."""
    in_loss: bool


def shown_tokens(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str | None = None,
    system: str | None = None,
    max_length: int = 1 << 30,
) -> list[ShownToken]:
    """A row token by token, exactly as it is trained on, BOS and EOS included.

    Raises:
        ModelError: the tokenizer has no EOS, or no chat template.
        DataError: the row cannot be put into the template.
    """
    (example,) = tokenize([row], tokenizer, max_length, template=template, system=system)
    learned = {place for start, end in label_runs(example) for place in range(start, end)}
    texts = token_texts(example.token_ids, tokenizer)
    return [
        ShownToken(number, text, place in learned)
        for place, (number, text) in enumerate(zip(example.token_ids, texts, strict=True))
    ]


def token_texts(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token as it stands in the sequence."""
    texts, before = [], ""
    for place in range(len(token_ids)):
        # By the text so far: alone, a SentencePiece token loses its blank.
        now = decode(token_ids[: place + 1], tokenizer)
        if now.endswith("\ufffd"):  # the character's other bytes follow
            texts.append("\ufffd")
            continue
        texts.append(now[len(before) :])
        before = now
    return texts
