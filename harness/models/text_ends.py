"""How a text begins and ends: one rule for training, scoring and generation.

    training     BOS, prompt and response as one text, EOS    (data/instructions.py)
    scoring      what the tokenizer puts, the text            (lm-eval's HFLM)
    generation   BOS, the text; until EOS                     (evaluation/paper)

BOS and EOS are the tokens that tokenizer_config.json names; a tokenizer that names no BOS gives
none. What the tokenizer itself puts is found by encoding, so that it does not matter which part of
tokenizer.json does it. A tokenizer that closes texts is refused: a request's answer is what follows
its context, and a token behind the context shifts it. Unlike beginnings are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, printable
from harness.models.advice import ADVICE, fault_line, model_error
from harness.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = ("a", "Question: 1 + 1\nAnswer:", "It is red.")
"""Texts that are encoded to see what the tokenizer adds; the same must be added to each."""
UNUSUAL = "\U000f1b2c"
"""A character of private use, which no vocabulary holds."""

Encode = Callable[[str, bool], list[int]]
"""The ids of a text, with what the tokenizer adds or without."""
NameOf = Callable[[int], str | None]
"""The text of a token."""


@dataclass(frozen=True)
class TextEnds:
    """What begins and ends a text, as token ids."""

    bos: int | None
    eos: int | None
    """Named by tokenizer_config.json: what training and generation put and look for."""
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    """What the tokenizer itself puts."""
    unknown_ends: bool
    """Whether a character that the tokenizer does not know becomes EOS."""
    names: Mapping[int, str]
    """The texts of these tokens."""

    @property
    def named_opening(self) -> tuple[int, ...]:
        """What training and generation put before a text."""
        return () if self.bos is None else (self.bos,)

    def rendering(self, opening: tuple[int, ...], closing: tuple[int, ...] = ()) -> str:
        """A text with these tokens around it, as `<s> text </s>`."""
        shown = [
            printable(self.names.get(token, f"#{token}"))[:40] for token in (*opening, *closing)
        ]
        return f"'{' '.join([*shown[: len(opening)], 'text', *shown[len(opening) :]])}'"


def find_text_ends(
    encode: Encode, name_of: NameOf, bos: int | None, eos: int | None, place: Path | str
) -> TextEnds:
    """What a tokenizer puts around a text, by encoding some.

    Raises:
        ModelError: it changes a text, or puts other tokens around another text.
    """
    found = {}
    for text in PROBES:
        whole, plain = encode(text, True), encode(text, False)
        if not plain:
            continue
        starts = range(len(whole) - len(plain) + 1)
        start = next((one for one in starts if whole[one : one + len(plain)] == plain), None)
        if start is None:
            raise model_error(
                place, "irregular", "post_processor changes the tokens of a text, not only its ends"
            )
        found[text] = tuple(whole[:start]), tuple(whole[start + len(plain) :])
    if not found:
        raise model_error(place, "irregular", f"it makes no tokens of a text ({PROBES[1]!r})")
    if len(set(found.values())) > 1:
        raise model_error(place, "irregular", "post_processor puts other tokens around other texts")
    opening, closing = next(iter(found.values()))
    tokens = {*opening, *closing, *(one for one in (bos, eos) if one is not None)}
    names = {token: name for token in tokens if (name := name_of(token)) is not None}
    unknown_ends = eos is not None and eos in encode(UNUSUAL, False)
    return TextEnds(bos, eos, opening, closing, unknown_ends, names)


def text_ends(tokenizer: PreTrainedTokenizerBase) -> TextEnds:
    """What a loaded tokenizer puts around a text, as it really does it.

    Raises:
        ModelError: it changes a text, or puts other tokens around another text.
    """

    def encode(text: str, special: bool) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
        return ids

    return find_text_ends(
        encode,
        lambda token: str(tokenizer.convert_ids_to_tokens(token)),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        "tokenizer.json",
    )


def end_faults(ends: TextEnds, vocab_size: int, place: Path | str) -> Iterator[str]:
    """Yields why texts with such ends cannot be trained on or scored."""
    outside = [
        f"{role} {printable(ends.names.get(token, ''))!r} is token {token}"
        for role, tokens in (
            ("bos_token", (ends.bos,)),
            ("eos_token", (ends.eos,)),
            ("what post_processor puts,", (*ends.opening, *ends.closing)),
        )
        for token in tokens
        if token is not None and token >= vocab_size
    ]
    if outside:
        found = f"{outside[0]}, but the model has {vocab_size} (0 to {vocab_size - 1})"
        yield fault_line(place, "token outside", found)
    if ends.closing:
        yield fault_line(place, "closing", closing_fault(ends))
    if ends.unknown_ends:
        found = "a character that the tokenizer does not know becomes EOS, the end of the text"
        yield fault_line(place, "unk is eos", found)


def closing_fault(ends: TextEnds) -> str:
    """What is wrong with a tokenizer that closes texts."""
    named = "EOS" if ends.closing == (ends.eos,) else "tokens"
    return (
        f"the tokenizer appends {named} to every text, "
        f"{ends.rendering(ends.opening, ends.closing)}, which log-likelihood tasks cannot score "
        "and training adds to its own EOS"
    )


def check_open(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a loaded tokenizer that closes texts.

    Raises:
        ModelError: it does.
    """
    ends = text_ends(tokenizer)
    if ends.closing:
        raise ModelError(f"{closing_fault(ends)}; {ADVICE['closing']}")


def describe_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """What every text begins with: `token 1`, `tokens 1, 5`, or `none`."""
    return _described(text_ends(tokenizer).opening)


def _described(opening: tuple[int, ...]) -> str:
    if not opening:
        return "none"
    return f"token{'s' * (len(opening) > 1)} {', '.join(map(str, opening))}"


def bos_warning(tokenizer: PreTrainedTokenizerBase, config: Any) -> str | None:
    """`opening_note` of a loaded tokenizer and transformers' configuration of its model."""
    config = config.get_text_config()
    return opening_note(text_ends(tokenizer), config.model_type, config.bos_token_id)


def opening_note(ends: TextEnds, model_type: str, expected: int | None) -> str | None:
    """One line on how a text begins otherwise than it should, with the consequence; or None.

    Either the tokenizer's BOS is not the one that config.json expects, or training and generation
    begin a text otherwise than scoring does. A configuration names a BOS for many families that
    were pre-trained without one (Qwen2, GPT-NeoX, Phi-3): there it is right that the tokenizer puts
    none.
    """
    family = FAMILIES.get(model_type)
    note = None
    if ends.opening and ends.opening[0] != expected:
        named = "names none" if expected is None else f"names token {expected}"
        note = (
            f"the tokenizer puts {_described(ends.opening)} before a text, but config.json {named} "
            "as BOS: scores come out lower than the model's own if it was pre-trained otherwise; "
            "take the model's own tokenizer.json"
        )
    elif not ends.opening and expected is not None and family and family.starts_with_bos:
        note = (
            f"the tokenizer puts no BOS before a text, but {family.title} models were pre-trained "
            f"with one (config.json: token {expected}): scores come out lower than the model's "
            "own; take the model's own tokenizer.json"
        )
    if ends.opening == ends.named_opening:
        return note
    unlike = (
        f"training and generation give the model {ends.rendering(ends.named_opening)}, "
        f"log-likelihood scoring {ends.rendering(ends.opening)}"
    )
    return f"{unlike}; {ADVICE['opening']}" if note is None else f"{note} ({unlike})"


def ending_note(ends: TextEnds, named: Mapping[str, Any]) -> str | None:
    """One line where EOS is none of the ends that the model's configuration names; else None.

    Args:
        named: `eos_token_id` by the file that names it: an id, a list of them, or None.
    """
    for file, value in named.items():
        ids = value if isinstance(value, list) else [value]
        if ends.eos is None or value is None or ends.eos in ids:
            continue
        listed = ", ".join(str(one) for one in ids[:3])
        return (
            f"training ends a text with {ends.rendering((), (ends.eos,))} (token {ends.eos}), "
            f"{file} names token {listed} as its end (eos_token_id): the model may have been made "
            "to end otherwise; name the token that it knows, as eos_token in tokenizer_config.json"
        )
    return None
