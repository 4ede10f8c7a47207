"""Training rows as the model is given them: their text with special tokens, and their hash."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.data.instructions import Example, label_runs
from harness.data.rows import Row
from harness.data.spec import DataSpec
from harness.data.template_choice import jinja_sha256
from harness.data.templates import NAMES, template_of
from harness.readers.pictures import Picture
from harness.records.prompts import Piece, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pieces_of(
    token_ids: Sequence[int],
    runs: Iterable[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[Piece, ...]:
    """The text of tokens, special ones included, in pieces; those of `runs` are marked.

    Args:
        runs: first token, and one past the last, in order.
    """
    pieces: list[Piece] = []
    place, before = 0, ""
    ends = [end for run in runs for end in run]
    for index, end in enumerate([*ends, len(token_ids)]):
        # By the text so far: alone, a SentencePiece token loses its blank.
        now = _decode(token_ids[:end], tokenizer)
        text = now[len(before) :]
        if not now.startswith(before):  # cut within a character
            text = _decode(token_ids[place:end], tokenizer)
        if text:
            pieces.append((text, index % 2 == 1))
        place, before = end, now
    return tuple(pieces)


def _decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def training_prompt(
    row: Row, example: Example, data: DataSpec, tokenizer: PreTrainedTokenizerBase
) -> Prompt:
    """A training row as the model is given it, with what is in the loss marked."""
    template = template_of(row, data.template) or "none"
    if template not in (*NAMES, "none"):
        template = f"jinja {jinja_sha256(template)[:8]}"
    return Prompt(template, pieces_of(example.token_ids, label_runs(example), tokenizer))


@dataclass(frozen=True)
class ShownPicture:
    """What is told of a row's picture."""

    format: str
    """As Pillow calls it: PNG, JPEG, ..."""
    width: int
    """Pixels, as `height`."""
    height: int
    num_bytes: int
    sha256: str

    def __str__(self) -> str:
        return (
            f"{self.format}, {self.width} x {self.height} pixels, {self.num_bytes:,} bytes, "
            f"sha256 {self.sha256[:16]}"
        )


def shown_picture(picture: Picture | None) -> ShownPicture | None:
    """What is told of a picture that was checked."""
    if picture is None:
        return None
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as image:
        width, height = image.size
        kind = image.format or "unknown"
    return ShownPicture(kind, width, height, len(picture.data), picture.sha256)


def examples_sha256(examples: Iterable[Example]) -> str:
    """The SHA-256 of training rows as the model is given them: tokens, and which are in the loss.

    It follows the template, the tokenizer and the maximal length, beside the rows.
    """
    digest = hashlib.sha256()
    for example in examples:
        runs = [place for run in label_runs(example) for place in run]
        for values in (example.token_ids, runs):
            digest.update(array("q", (len(values), *values)).tobytes())
    return digest.hexdigest()
