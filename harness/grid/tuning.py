"""How a block's methods are tuned: the same number of trials for each, from a space of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import model_validator

from harness.spec import Spec

FIRST_SEED = 1_000_000
"""The seed of the first training of a trial: blocks use smaller ones, so that what is chosen is
trained with seeds that the choice has not seen."""


class Range(Spec):
    """Values between two bounds, both included, for a sampler to draw from."""

    low: float
    high: float
    log: bool = False
    """Whether the draws are even on a logarithmic scale."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be more than 0 on a logarithmic scale")
        return self


Values = Sequence[object] | Range
"""What a setting may be: a list of values, or a range."""
Space = Mapping[str, Values]
"""What is tuned of one method: its options and training settings by name."""
