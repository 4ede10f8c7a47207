"""What is known of one benchmark under one protocol. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.evaluation.metric_kinds import MetricKind
from harness.evaluation.protocols import LM_EVAL, Protocol


@dataclass(frozen=True)
class Decoding:
    """How responses are generated."""

    temperature: float
    """Logits are divided by it; 0 takes the likeliest token."""
    top_p: float
    """The likeliest tokens of a step are kept, until their probability reaches it."""
    max_new_tokens: int
    seed: int = 1


@dataclass(frozen=True)
class Form:
    """Where a row holds its options and the right one, as `column` or `column.field`."""

    options: str
    """A list of texts."""
    answer: str | None = None
    """The right option: one of `labels`, or without them its number, from 0."""
    labels: str | None = None
    """A list of the options' names."""
    number_as_text: bool = False
    """The number may be written as text, as in `"2"`."""
    truths: str | None = None
    """In place of an answer: a list with 1 for each true option, else 0."""
    first_is_true: bool = False
    """The task takes the first option for the right one, whatever `truths` say."""
    num_options: int | None = None
    """How many options the prompt shows; None for any number."""


Source = tuple[str, str | None, str | None]
"""Where items come from: a data set of the hub or a folder, with its configuration (None where it
may be any) and split; or a file, or a task's name, with None for both."""


@dataclass(frozen=True)
class Member:
    """A task that a benchmark without an entry here is made of, as its YAML says."""

    name: str
    """lm-eval's name of it."""
    output_type: str
    """One of `metric_kinds.DEFAULT_METRICS`."""
    shots: int | None
    """Its own number of few-shot examples; None where it has none."""
    eval_split: str
    few_shot_split: str | None
    """None where the task cannot take any examples, or has its own list of them."""
    hub: tuple[str, str | None] | None
    """Repository and configuration on the hub; None where its data are files."""
    columns: frozenset[str]
    """What its templates read of each row, as far as that can be told."""
    needs_files: str | None = None
    """Why its rows are nowhere but in files that the grid names; None where lm-eval finds them."""
    files: tuple[str, ...] = ()
    """The local files, folders or patterns that its YAML takes its rows from."""
    sources: tuple[Source, ...] = ()
    """Where the items asked for come from."""

    def num_shots(self, shots: int | None) -> int:
        """Its number of few-shot examples where `shots` are asked for, by lm-eval's rule."""
        return self.shots or 0 if shots is None or self.shots == 0 else shots


@dataclass(frozen=True)
class Benchmark:
    """One benchmark under one protocol."""

    name: str
    """The name in a grid, which is that of a task or group of lm-eval or of `task_folder`."""
    title: str
    column: str | None
    """The column of the paper's tables that it fills, or None."""
    task_folder: str
    """Where its YAML lies, as `package:folder`."""
    shots: int
    """The number of few-shot examples by definition."""
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    eval_split: str
    data_folder: str
    """Folder of its local parquet files, one for each split, relative to the data root."""
    columns: tuple[str, ...]
    """What the task reads of each row."""
    form: Form | None
    """What of it are the options and the answer; the other columns are texts. None where only the
    task itself can tell."""
    hub: tuple[str, str | None] | None
    """Repository and configuration of the data set on the hub; None where it is only local."""
    few_shot_split: str | None = None
    """Where few-shot examples come from; None where the task cannot take any."""
    primary_metric: str = "acc"
    """The metric that tables show and averages use."""
    higher_is_better: bool = True
    """Whether the higher primary metric is the better one."""
    subject_column: str | None = None
    """In a group of one task per subject: the column that tells the subjects apart."""
    id_column: str | None = None
    """The data set's own name of an item."""
    optional_columns: tuple[str, ...] = ()
    """What the task reads of each row where the data have it."""
    picture_column: str | None = None
    """The column that holds an item's picture, as bytes or as {bytes, path}; it may be empty."""
    item_columns: tuple[str, ...] = ()
    """Columns of the data set that the items' records hold too: tables have columns of some items,
    told by these."""
    item_function: str | None = None
    """`module:function` that makes further columns of the items' records, from a row and the name
    of its picture, the SHA-256 of its bytes or None."""
    true_labels: str | None = None
    """Column whose `labels` tell which options are true, where several may be."""
    chance: float | None = None
    """Expected primary metric of a uniformly random answer; None where that is not defined."""
    is_control: bool = False
    """Whether it asks another benchmark's questions with something taken away: it stands in tables,
    and is nothing that methods are summed up or compared by unasked."""
    protocol: Protocol = LM_EVAL
    world: str | None = None
    """`demo` for an analogue in the embedded world; None for the real benchmark."""
    shares_requests: str | None = None
    """Benchmarks of one name here have requests in common: asked for together, they are scored
    together."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """By split: a local file to read instead where the one in `files` is absent."""
    fallback_note: str | None = None
    """The deviation to print beside a score that was measured with a fallback."""
    decoding: Decoding | None = None
    """How responses are generated; None where log-likelihoods are scored."""
    kinds: Mapping[str, MetricKind] = field(default_factory=dict)
    """By metric: its unit and direction."""
    members: tuple[Member, ...] = ()
    """Its tasks, of a benchmark that is known by lm-eval's YAML alone."""
    is_group: bool = False
    """Whether it is lm-eval's mean over several tasks."""
    unsafe_code: bool = False
    """Whether its scoring runs the code that a model has written."""
    definition: str | None = None
    """SHA-256 of the YAML files and functions that define a task of one's own."""

    def direction(self, metric: str) -> bool:
        """Whether the higher value of a metric is the better one."""
        return self.kinds.get(metric, MetricKind()).higher_is_better

    def unit(self, metric: str) -> str | None:
        """What a metric counts where it is no share, such as `perplexity`; None of a share."""
        return self.kinds.get(metric, MetricKind()).unit

    @property
    def files(self) -> dict[str, str]:
        """Local parquet file by split, relative to the data root."""
        return {split: f"{self.data_folder}/{split}.parquet" for split in self.splits}

    def split_files(self, shots: int) -> dict[str, str]:
        """The files that a run with `shots` reads, by split: few-shot data only if used."""
        splits = (self.eval_split, self.few_shot_split if shots else None)
        return {split: self.files[split] for split in splits if split}
