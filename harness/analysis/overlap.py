"""What is known of test items that the training rows hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OverlapLine:
    """What a data set holds of a benchmark."""

    data: str
    benchmark: str
    items: int
    ngrams: int
    """Items that share 13 words in a row with a training row."""
    questions: int
    """Items whose whole question is a text of a training row."""


@dataclass(frozen=True)
class OverlapScore:
    """A cell's score of a benchmark with and without the items that were found."""

    label: str
    benchmark: str
    metric: str
    hits: int
    items: int
    all: float
    """Mean over all items that were asked, each counted alike."""
    without: float
    """Mean over those that were not found."""
    found: float
    """Mean over those that were."""


@dataclass(frozen=True)
class Overlap:
    """What is known of the training rows and the test items."""

    lines: tuple[OverlapLine, ...] = ()
    scores: tuple[OverlapScore, ...] = ()
    unknown: tuple[str, ...] = ()
    """`benchmark (data set)` of which nothing is kept."""
