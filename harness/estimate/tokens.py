"""How many tokens a cell trains on and is scored on: counted once per data file and tokenizer where
both are here, else from constants that were measured once (`known_tokens.yaml`), else estimated;
every count says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from harness.data.places import is_here
from harness.data.rows import texts_of
from harness.data.sets import num_examples, read_instructions
from harness.data.spec import DataSpec
from harness.data.validation import training_rows
from harness.estimate.lengths import Source, TrainingTokens, kept_lengths, training_tokens
from harness.estimate.needs import local_model
from harness.estimate.own_tokens import own_size
from harness.estimate.published_sizes import (
    GenerationSize,
    RowSize,
    ScoringSize,
    generation_size,
    row_size,
    scoring_size,
)
from harness.evaluation.tasks import TaskSpec
from harness.grid.schema import Cell, RowCounts
from harness.models.shape import ModelShape

CHARACTERS_PER_TOKEN = 4.0
"""Characters per token of English text, where the tokenizer is not at hand."""
TEMPLATE_CHARACTERS = 180
"""Length of Alpaca's template without a row's own texts: the mean of its two forms."""
SPREAD = 1.45
"""Mean squared length by squared mean length, of Alpaca."""
LABEL_SHARE = 0.515
"""Share of Alpaca's tokens that are in responses."""
UNKNOWN_ROWS = 10**10
"""Of a set whose size nothing tells: more than any training passes."""
NEW_TOKENS = 40
"""Tokens of a generated answer until its EOS: one sentence, as fine-tuned models answer."""


@dataclass(frozen=True)
class ScoringTokens:
    """Scoring benchmarks that share requests, or generating answers to one."""

    items: int
    tokens: int
    """Tokens of the requests' trie, or of the prompts."""
    scored: int
    """Those that need logits."""
    pairs: int
    """Query-key pairs of attention."""
    new_tokens: int = 0
    """Generated one after the other; 0 for log-likelihoods."""
    source: Source = "known"


TokensOf = Callable[[Cell], TrainingTokens | None]


def token_counter(
    *, runs_dir: Path, data_root: Path | None, num_rows: RowCounts, read_only: bool = False
) -> TokensOf:
    """A function that gives the tokens of one epoch of a cell that trains.

    Counted where the data and the model's tokenizer lie on this machine (of a large set a sample,
    which stands for all); else from constants, where the data set is known; else from the
    characters of local data; None where nothing tells. Lengths that were counted are kept in
    `runs_dir`, unless that is `read_only`; `num_rows` has the size of each training set.
    """
    lengths_of = cache(
        partial(kept_lengths, data_root=data_root, runs_dir=runs_dir, read_only=read_only)
    )

    @cache
    def counted(
        data: DataSpec, model: Path, fraction: float, seed: int, size: int | None, limit: int
    ) -> TrainingTokens:
        lengths = lengths_of(data, model)
        total = len(lengths.whole)
        if size is not None and total < size:  # a sample of a large set
            sampled = training_tokens(lengths, range(total), limit, data)
            return _scaled(sampled, num_examples(fraction, size))
        return training_tokens(lengths, training_rows(data, total, fraction, seed), limit, data)

    def count(cell: Cell) -> TrainingTokens | None:
        assert cell.train is not None
        assert cell.fraction is not None
        limit, size = cell.train.max_length, num_rows.get(cell.data_name)
        model, data_is_here = local_model(cell.model, data_root), is_here(cell.data, data_root)
        if data_is_here and model is not None and (model / "tokenizer.json").is_file():
            seed = cell.seed_of("subset")
            return counted(cell.data, model, cell.fraction, seed, size, limit)
        if size is None and cell.train.max_steps is None:
            return None
        if size is None:  # as if no row came twice
            wanted = cell.train.num_passed(UNKNOWN_ROWS)
        else:
            wanted = num_examples(cell.fraction, size)
        known = known_training_tokens(cell.data.published, cell.model.shape, wanted, limit)
        if known is not None and cell.data.text_settings:  # counted in Alpaca's template
            known = replace(known, source="estimated")
        listed = row_size(cell.data.source)
        if known is None and listed is not None and not data_is_here:
            return _of_rows_alike(wanted, listed, limit, all_in_loss=cell.data.all_in_loss)
        if known is not None or not data_is_here:
            return known
        texts = read_instructions(cell.data, data_root=data_root).rows
        characters = sum(len(text) for row in texts for text in texts_of(row))
        return _tokens_of_characters(wanted, characters / len(texts), limit)

    return count


def _scaled(sample: TrainingTokens, rows: int) -> TrainingTokens:
    """What so many rows come to, as a sample of them does."""
    names = ("tokens", "labels", "shared_prefix", "squares", "lost", "cut")
    sizes = {name: round(getattr(sample, name) * rows / sample.rows) for name in names}
    return TrainingTokens(rows=rows, **sizes, source="estimated")


@cache
def _known() -> dict[str, Any]:
    import yaml

    text = (resources.files("harness") / "estimate/known_tokens.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _tokenizer_family(shape: ModelShape) -> str:
    """The name under which constants of a model's tokenizer are kept, if there are any."""
    return f"{shape.model_type}-{shape.vocab_size}"


def known_training_tokens(
    source: str | None, shape: ModelShape, rows: int, max_length: int
) -> TrainingTokens | None:
    """The expected size of `rows` evenly drawn rows of a data set that was counted once.

    Its source is `known` under a counted tokenizer, told by the model's shape, and cut-off, and
    `estimated` from characters under another; None of a data set that was not counted.
    """
    data = _known()["training"].get(source)
    if data is None:
        return None
    entries: Sequence[Mapping[str, int]] = data.get(_tokenizer_family(shape), ())
    for entry in entries:
        if entry["max_length"] == max_length:
            names = ("tokens", "labels", "shared_prefix", "squares")
            sizes = {name: round(rows / entry["rows"] * entry[name]) for name in names}
            return TrainingTokens(rows=rows, **sizes, source="known")
    largest = max(data["llama-32000"], key=lambda entry: entry["max_length"])
    characters = data["characters"] / largest["rows"]
    shared_share = largest["shared_prefix"] / largest["tokens"]
    return _tokens_of_characters(rows, characters, max_length, shared_share)


def _tokens_of_characters(
    rows: int, characters: float, max_length: int, shared_share: float = 0.0
) -> TrainingTokens:
    """Estimates rows under an unknown tokenizer, of so many characters of their own in the mean.

    Of the tokens, `shared_share` is in the template's shared prefix.
    """
    mean = min((characters + TEMPLATE_CHARACTERS) / CHARACTERS_PER_TOKEN + 2, max_length)
    return _of_mean(rows, mean, LABEL_SHARE, shared_share)


def _of_rows_alike(
    rows: int, size: RowSize, max_length: int, *, all_in_loss: bool
) -> TrainingTokens:
    """Estimates rows of a data set whose size is listed."""
    share = 1.0 if all_in_loss else size.label_share or LABEL_SHARE
    mean = min(size.mean, max_length)
    return _of_mean(rows, mean, share, spread=size.spread or SPREAD)


def _of_mean(
    rows: int, mean: float, label_share: float, shared_share: float = 0.0, spread: float = SPREAD
) -> TrainingTokens:
    """Estimates rows of so many tokens in the mean."""
    tokens = round(rows * mean)
    return TrainingTokens(
        rows=rows,
        tokens=tokens,
        labels=round(label_share * tokens),
        shared_prefix=round(shared_share * tokens),
        squares=round(spread * mean * mean * rows),
        source="estimated",
    )


def scoring_tokens(
    tasks: Sequence[TaskSpec], shape: ModelShape, data_root: Path | None = None
) -> ScoringTokens | None:
    """The size of scoring tasks together; None for a benchmark that was not counted, unless its
    rows lie here.

    The constants scale with the items. Under another tokenizer than they were counted with, or
    with other shots, they are estimates; so is what local rows tell.
    """
    if tasks[0].benchmark.members:
        return _sum([_of_rows(task, data_root) for task in tasks])
    if all(task.benchmark.protocol.generates for task in tasks):
        return _sum([_generation(task) for task in tasks])
    together = _log_likelihoods(tasks[0], "+".join(task.name for task in tasks), shape)
    return together or _sum([_log_likelihoods(task, task.name, shape) for task in tasks])


def _of_rows(task: TaskSpec, data_root: Path | None) -> ScoringTokens | None:
    if (size := own_size(task, data_root)) is not None:
        return ScoringTokens(**vars(size), source="estimated")
    return _listed_generation(task)


def _listed_generation(task: TaskSpec) -> ScoringTokens | None:
    known = generation_size(task.name, task.limit)
    if known is None:
        return None
    pairs = round((known.tokens + known.new_tokens) ** 2 / known.items)
    return ScoringTokens(
        items=known.items, tokens=known.tokens, scored=0, pairs=pairs,
        new_tokens=known.new_tokens, source="estimated",
    )  # fmt: skip


def num_items(task: TaskSpec) -> int | None:
    """Items of a task under its limit: as counted, or of files that ship or the grid names; else
    None."""
    counted = _counted(task.name)
    if counted is None:
        size = own_size(task, None) if task.benchmark.members else None
        listed = size or _listed(task)
        return None if listed is None else listed.items
    whole = int(counted.get("benchmark_items", counted["items"]))
    return whole if task.limit is None else min(whole, task.limit * int(counted["subjects"]))


def _listed(task: TaskSpec) -> GenerationSize | ScoringSize | None:
    """The size of a task that others counted."""
    return generation_size(task.name, task.limit) or scoring_size(task.name, task.limit)


def num_subjects(task: TaskSpec) -> int:
    """The number of lm-eval tasks that a benchmark is made of; a limit is of each."""
    counted = _counted(task.name)
    return max(1, len(task.benchmark.members)) if counted is None else int(counted["subjects"])


def _counted(names: str, family: str = "") -> Mapping[str, int] | None:
    """The constants of benchmarks under a tokenizer, or else under any."""
    own = _known()["scoring"].get(family, {})
    families = [own, *_known()["scoring"].values(), *_known()["generation"].values()]
    return next((known[names] for known in families if names in known), None)


def _log_likelihoods(task: TaskSpec, names: str, shape: ModelShape) -> ScoringTokens | None:
    family = _tokenizer_family(shape)
    counted, items = _counted(names, family), num_items(task) or 0
    if counted is None:
        listed = scoring_size(names, task.limit)
        return None if listed is None else ScoringTokens(**vars(listed), source="estimated")
    scale = items / counted["items"]
    shots = (1 + task.num_shots) / (1 + counted["shots"])
    exact = shots == 1 and names in _known()["scoring"].get(family, {})
    return ScoringTokens(
        items=items,
        tokens=round(scale * shots * counted["tokens"]),
        scored=round(scale * counted["scored"]),
        pairs=round(scale * shots * shots * counted["pairs"]),
        source="known" if exact else "estimated",
    )


def _generation(task: TaskSpec) -> ScoringTokens | None:
    counted = _counted(task.name)
    if counted is None:
        return _listed_generation(task)
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
    sizes = ("items", "tokens", "scored", "pairs", "new_tokens")
    sums = {name: sum(getattr(part, name) for part in known) for name in sizes}
    estimated = any(part.source == "estimated" for part in known)
    return ScoringTokens(**sums, source="estimated" if estimated else "known")
