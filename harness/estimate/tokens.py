"""How many tokens a cell trains on and is scored on: counted where it can be, else from constants
that were measured once (`known_tokens.yaml`), else estimated; every count says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from harness.estimate.lengths import RowLengths
from harness.evaluation.tasks import TaskSpec
from harness.models.shape import ModelShape

Source = Literal["counted", "known", "estimated"]
"""From these very rows; from constants of this data and tokenizer; from characters or another
tokenizer's constants."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text under a tokenizer that is not at hand."""
TEMPLATE_CHARACTERS = 180
"""Of Alpaca's template without the row's own texts, in the mean of its two forms."""
SPREAD = 1.45
"""Mean squared length by squared mean length, of Alpaca."""
LABEL_SHARE = 0.515
"""Of the tokens, Alpaca's responses."""
NEW_TOKENS = 40
"""Of an answer by generation, until its EOS: one sentence, as fine-tuned models answer."""


@dataclass(frozen=True)
class TrainingTokens:
    """One pass over the rows of a cell."""

    rows: int
    tokens: int
    """Real tokens, cut to the maximal length, padding not counted."""
    labels: int
    """Those that are learned, and need logits."""
    opening: int
    """Those of the template's openings, which can be computed once."""
    squares: int
    """Sum of the squared lengths: what causal attention sees is half of it."""
    source: Source = "counted"


@dataclass(frozen=True)
class ScoringTokens:
    """Scoring benchmarks that share requests, or generating answers to one."""

    items: int
    tokens: int
    """Of the trie of the requests, or of the prompts."""
    scored: int
    """Those that need logits."""
    pairs: int
    """Query-key pairs of attention."""
    new_tokens: int = 0
    """Generated one after the other; 0 for log-likelihoods."""
    source: Source = "known"


def training_tokens(lengths: RowLengths, rows: Iterable[int], max_length: int) -> TrainingTokens:
    """Returns the size of chosen rows, cut to a maximal length."""
    count = tokens = labels = opening = squares = 0
    for row in rows:
        size = min(lengths.whole[row], max_length)
        count += 1
        tokens += size
        labels += size - min(lengths.prompt[row], size)
        opening += min(lengths.opening[row], size)
        squares += size * size
    return TrainingTokens(count, tokens, labels, opening, squares)


@cache
def _known() -> dict[str, Any]:
    import yaml

    place = resources.files("harness") / "estimate/known_tokens.yaml"
    known: dict[str, Any] = yaml.safe_load(place.read_text(encoding="utf-8"))
    return known


def tokenizer_family(shape: ModelShape) -> str:
    """Returns the name under which constants of a model's tokenizer are kept, if there are any."""
    return f"{shape.model_type}-{shape.vocab_size}"


def known_training_tokens(
    source: str | None, shape: ModelShape, rows: int, max_length: int
) -> TrainingTokens | None:
    """Returns the expected size of `rows` rows of a data set that was counted once.

    Args:
        source: the data set's name on the hub.
        shape: of the model, which tells its tokenizer.
        rows: how many of its rows, drawn evenly.
        max_length: where they are cut.

    Returns:
        The size, of source `known` under a counted tokenizer and cut-off, `estimated` from
        characters under another; None of a data set that was not counted.
    """
    data = _known()["training"].get(source)
    if data is None:
        return None
    entries: Sequence[Mapping[str, int]] = data.get(tokenizer_family(shape), ())
    for entry in entries:
        if entry["max_length"] == max_length:
            scale = rows / entry["rows"]
            return TrainingTokens(
                rows=rows,
                tokens=round(scale * entry["tokens"]),
                labels=round(scale * entry["labels"]),
                opening=round(scale * entry["opening"]),
                squares=round(scale * entry["squares"]),
                source="known",
            )
    largest = max(data["llama-32000"], key=lambda entry: entry["max_length"])
    characters = data["characters"] / largest["rows"]
    return tokens_of_characters(
        rows, characters, max_length, largest["opening"] / largest["tokens"]
    )


def tokens_of_characters(
    rows: int, characters: float, max_length: int, opening: float = 0.0
) -> TrainingTokens:
    """Returns the size of rows of so many characters each in the mean, under an unknown tokenizer.

    Args:
        rows: how many.
        characters: of a row's own texts, in the mean.
        max_length: where they are cut.
        opening: share of the tokens that are in the template's opening.
    """
    mean = min((characters + TEMPLATE_CHARACTERS) / CHARACTERS_PER_TOKEN + 2, max_length)
    tokens = round(rows * mean)
    return TrainingTokens(
        rows=rows,
        tokens=tokens,
        labels=round(LABEL_SHARE * tokens),
        opening=round(opening * tokens),
        squares=round(SPREAD * mean * mean * rows),
        source="estimated",
    )


def scoring_tokens(tasks: Sequence[TaskSpec], shape: ModelShape) -> ScoringTokens | None:
    """Returns what scoring tasks together comes to; None for a benchmark that was not counted.

    The constants scale with the items. Under another tokenizer than they were counted with, or
    with other shots, they are estimates.
    """
    if all(task.benchmark.protocol.generates for task in tasks):
        return _sum([_generation(task) for task in tasks])
    together = _counted("+".join(task.name for task in tasks), shape)
    if together is not None:
        return _of_task(tasks[0], *together)
    parts: list[ScoringTokens | None] = []
    for task in tasks:
        counted = _counted(task.name, shape)
        parts.append(None if counted is None else _of_task(task, *counted))
    return _sum(parts)


def num_items(task: TaskSpec) -> int | None:
    """Returns the items of a task under its limit; None for a benchmark that was not counted."""
    counted = _any_counted(task.name)
    if counted is None:
        return None
    whole = int(counted.get("benchmark_items", counted["items"]))
    return whole if task.limit is None else min(whole, task.limit * int(counted["subjects"]))


def num_subjects(task: TaskSpec) -> int:
    """Returns the number of lm-eval tasks that a benchmark is made of; a limit is of each."""
    counted = _any_counted(task.name)
    return 1 if counted is None else int(counted["subjects"])


def _any_counted(names: str) -> Mapping[str, int] | None:
    families = [*_known()["scoring"].values(), *_known()["generation"].values()]
    return next((family[names] for family in families if names in family), None)


def _counted(names: str, shape: ModelShape) -> tuple[Mapping[str, int], bool] | None:
    """Returns the constants of benchmarks, and whether they are of this very tokenizer."""
    scoring = _known()["scoring"]
    own = scoring.get(tokenizer_family(shape), {})
    if names in own:
        return own[names], True
    other = _any_counted(names)
    return None if other is None else (other, False)


def _of_task(task: TaskSpec, counted: Mapping[str, int], same_tokenizer: bool) -> ScoringTokens:
    items = num_items(task) or 0
    scale = items / counted["items"]
    shots = (1 + task.num_shots) / (1 + counted["shots"])
    exact = same_tokenizer and shots == 1
    return ScoringTokens(
        items=items,
        tokens=round(scale * shots * counted["tokens"]),
        scored=round(scale * counted["scored"]),
        pairs=round(scale * shots * shots * counted["pairs"]),
        source="known" if exact else "estimated",
    )


def _generation(task: TaskSpec) -> ScoringTokens | None:
    counted = _any_counted(task.name)
    if counted is None:
        return None
    items = num_items(task) or 0
    tokens = round(items / counted["items"] * counted["tokens"])
    mean = tokens / items + NEW_TOKENS
    return ScoringTokens(
        items=items,
        tokens=tokens,
        scored=0,
        pairs=round(items * mean * mean),
        new_tokens=NEW_TOKENS * items,
        source="estimated",  # nobody knows how long the answers will be
    )


def _sum(parts: Sequence[ScoringTokens | None]) -> ScoringTokens | None:
    """Adds sizes up; None where one is not known."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    total = known[0]
    for part in known[1:]:
        total = replace(
            total,
            items=total.items + part.items,
            tokens=total.tokens + part.tokens,
            scored=total.scored + part.scored,
            pairs=total.pairs + part.pairs,
            new_tokens=total.new_tokens + part.new_tokens,
            source=part.source if part.source == "estimated" else total.source,
        )
    return total
