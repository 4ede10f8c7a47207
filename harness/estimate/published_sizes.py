"""Sizes of data that are not here and were counted by others (`published_sizes.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class GenerationSize:
    """Prompts and answers of a benchmark that is generated."""

    items: int
    tokens: int
    """Of all prompts."""
    new_tokens: int
    """Of all answers."""


@dataclass(frozen=True)
class RowSize:
    """Tokens of the rows of a data set, BOS and EOS included."""

    mean: float
    label_share: float | None
    """Share of them that are in the loss; None where it was not counted."""
    spread: float | None
    """Mean squared length by squared mean length; None where it was not counted."""


@cache
def _sizes() -> dict[str, Any]:
    import yaml

    text = resources.files("harness.estimate").joinpath("published_sizes.yaml")
    return dict(yaml.safe_load(text.read_text(encoding="utf-8")))


def row_size(source: str | None) -> RowSize | None:
    """The size of a row of a hub data set; None of one that is not listed."""
    found = _sizes()["training"].get(source)
    if found is None:
        return None
    rows, tokens = found["rows"], found["tokens"]
    return RowSize(
        mean=tokens / rows,
        label_share=found["labels"] / tokens if "labels" in found else None,
        spread=found["squares"] * rows / tokens**2 if "squares" in found else None,
    )


@dataclass(frozen=True)
class ScoringSize:
    """Requests of a benchmark whose options are scored."""

    items: int
    tokens: int
    """Of all requests, each computed once."""
    scored: int
    """Those that need logits."""
    pairs: int
    """Query-key pairs of attention."""


def scoring_size(task: str, limit: int | None) -> ScoringSize | None:
    """The size of a task under its limit; None of one that is not listed."""
    found = _sizes()["scoring"].get(task)
    if found is None:
        return None
    items = found["items"] if limit is None else min(limit, found["items"])
    share = items / found["items"]
    sizes = {name: round(share * found[name]) for name in ("tokens", "scored", "pairs")}
    return ScoringSize(items=items, **sizes)


def generation_size(task: str, limit: int | None) -> GenerationSize | None:
    """The size of a task under its limit; None of one that is not listed."""
    found = _sizes()["generation"].get(task)
    if found is None:
        return None
    items = found["items"] if limit is None else min(limit, found["items"])
    tokens = round(items / found["items"] * found["tokens"])
    return GenerationSize(items, tokens, items * found["new"])
