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


@cache
def _sizes() -> dict[str, Any]:
    import yaml

    text = resources.files("harness.estimate").joinpath("published_sizes.yaml")
    return dict(yaml.safe_load(text.read_text(encoding="utf-8")))


def mean_tokens(source: str | None) -> float | None:
    """Tokens of a mean row of a hub data set, EOS included; None of one that is not listed."""
    found = _sizes()["training"].get(source)
    return None if found is None else found["tokens"] / found["rows"]


def generation_size(task: str, limit: int | None) -> GenerationSize | None:
    """The size of a task under its limit; None of one that is not listed."""
    found = _sizes()["generation"].get(task)
    if found is None:
        return None
    items = found["items"] if limit is None else min(limit, found["items"])
    tokens = round(items / found["items"] * found["tokens"])
    return GenerationSize(items, tokens, items * found["new"])
