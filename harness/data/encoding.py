"""Tokens of rendered rows, and which of them are in the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.data.chat import Rendering
from harness.data.marks import Span
from harness.data.turns import RowFault

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Runs = tuple[Span, ...]
"""Runs of tokens in the loss: the first, and one past the last."""


def encode_renderings(
    renderings: Sequence[Rendering], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], Runs] | RowFault]:
    """Yields the tokens of each text, and the runs of them that are its spans.

    A text is encoded whole, as transformers does. Where a token would reach over the edge of a
    span, or be a special one that a row's text spells, the text is cut there first. What a run
    spells is then exactly its span's text; of another run the fault is given.
    """
    encoded = _encode([one.text for one in renderings], tokenizer)
    for rendering, encoding in zip(renderings, encoded, strict=True):
        ids, runs = list(encoding.ids), _runs(rendering.spans, encoding)
        if rendering.breaks or runs is None or _misspelt(ids, runs, rendering, tokenizer):
            ids, runs = _in_pieces(rendering, tokenizer)
            if (fault := _misspelt(ids, runs, rendering, tokenizer)) is not None:
                yield RowFault(
                    f"the tokens in the loss spell {fault[0][:60]!r}, not {fault[1][:60]!r}: the "
                    "tokenizer changes the text"
                )
                continue
        yield ids, runs


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Tokens with their places in the texts; what is a special token there becomes one."""
    if not texts:
        return []
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=False,
        return_attention_mask=False,
        verbose=False,
    )
    assert found.encodings is not None
    return list(found.encodings)


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(_encode([text], tokenizer)[0].ids)


def _runs(spans: Sequence[Span], encoding: Any) -> Runs | None:
    """The tokens that hold the spans' first and last characters, and those between."""
    runs = []
    for start, end in spans:
        if start == end:
            continue
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is None or last is None:
            return None
        runs.append((first, last + 1))
    return tuple(runs)


def _in_pieces(rendering: Rendering, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], Runs]:
    """The text cut at the spans' edges and within spelled special tokens."""
    edges = {edge for span in rendering.spans for edge in span}
    cuts = sorted({0, len(rendering.text), *edges, *rendering.breaks})
    newline = _ids("\n", tokenizer)
    ids: list[int] = []
    place_of = {0: 0}
    for start, end in zip(cuts, cuts[1:], strict=False):
        piece = rendering.text[start:end]
        # Behind a line break, so that SentencePiece puts no blank before it.
        found = _ids("\n" + piece, tokenizer) if start else []
        if start and found[: len(newline)] == newline:
            ids += found[len(newline) :]
        else:
            ids += _ids(piece, tokenizer)
        place_of[end] = len(ids)
    runs = ((place_of[start], place_of[end]) for start, end in rendering.spans if start < end)
    return ids, tuple(runs)


def _misspelt(
    ids: list[int], runs: Runs, rendering: Rendering, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, str] | None:
    """What a run spells, and the text that it should; None where all are right."""
    spans = [span for span in rendering.spans if span[0] < span[1]]
    for (start, end), (first, last) in zip(runs, spans, strict=True):
        text, found = rendering.text[first:last], decode(ids[start:end], tokenizer)
        if found == text:
            continue
        # SentencePiece's first blank is none of the text's
        behind = decode(ids[:end], tokenizer)[len(decode(ids[:start], tokenizer)) :]
        # and some tokenizers normalise a text, or do not know all of it.
        if behind != text and found != decode(_ids(text, tokenizer), tokenizer):
            return found, text
    return None


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of tokens, special ones and blanks included."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text
