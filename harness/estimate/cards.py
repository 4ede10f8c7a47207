"""The accelerators that a plan knows: the makers' figures in `cards.yaml`."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import Field

from harness.errors import UsageError, did_you_mean
from harness.spec import Spec

Rate = Annotated[float, Field(gt=0)]


class Card(Spec):
    """One accelerator, by its maker's data sheet."""

    title: str
    aliases: tuple[str, ...]
    """What the driver calls it."""
    memory_gb: Rate
    """Thousands of millions of bytes."""
    peak_bf16_flops: Rate | None
    """Operations per second of dense matrix products; None where it has no such units."""
    peak_fp16_flops: Rate | None
    peak_fp32_flops: Rate
    sustained_share: Annotated[float, Field(gt=0, le=1)]
    """Of the peak, kept up in training: an assumption."""
    bandwidth: Rate
    """Of its memory, bytes per second."""
    price_per_hour: Rate | None
    source: str
    """Address of the data sheet."""

    @property
    def memory_bytes(self) -> float:
        """Its memory."""
        return self.memory_gb * 1e9

    def precision(self, setting: str) -> str:
        """Returns the precision of the frozen base, as `resolve_precision` does on a machine."""
        if setting == "auto":
            return "fp32" if self.peak_bf16_flops is None else "bf16"
        return setting

    def peak_flops(self, precision: str) -> float | None:
        """Returns the peak in a precision; None where the card does not compute in it."""
        peaks = {"bf16": self.peak_bf16_flops, "fp16": self.peak_fp16_flops}
        return peaks.get(precision, self.peak_fp32_flops)


@cache
def known_cards() -> dict[str, Card]:
    """Returns the cards by name."""
    import yaml

    text = (resources.files("harness") / "estimate/cards.yaml").read_text(encoding="utf-8")
    return {name: Card.model_validate(raw) for name, raw in yaml.safe_load(text).items()}


def find_card(name: str) -> Card:
    """Returns the card of a name.

    Raises:
        UsageError: there is none; the nearest names are told.
    """
    cards = known_cards()
    if name.lower() not in cards:
        raise UsageError(f"--hardware {name}: no such card{did_you_mean(name.lower(), cards)}")
    return cards[name.lower()]


def card_of_device(device_name: str) -> tuple[str, Card] | None:
    """Returns the name and figures of a card as its driver calls it, or None where it is new."""
    for name, card in known_cards().items():
        if device_name in card.aliases:
            return name, card
    return None
