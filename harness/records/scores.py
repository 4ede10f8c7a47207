"""What was measured on a benchmark: one metric of one task, as `result.json` holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
LARGEST_SHARE = 1 + 1e-6
"""A mean may be rounded up."""


@dataclass(frozen=True, config=ConfigDict(validate_by_name=True, validate_by_alias=True))
class TaskScore:
    """One metric of one task, with all that is needed to know what it means."""

    key: str
    """Identity of the evaluation request that gave it: see `harness.evaluation.tasks`."""
    protocol: str
    """How it was measured: `lm-eval` (log-likelihoods) or `paper` (generated responses)."""
    benchmark: str
    """The name in the grid, such as `mmlu`."""
    task: str
    """The lm-eval task, such as `mmlu_anatomy`; the benchmark's name for its aggregates."""
    metric: str
    """lm-eval's metric, such as `acc_norm`, followed by its filter where it has one of its own, as
    in `exact_match,strict-match`; or `acc_macro` (mean over subjects)."""
    value: Finite
    """The score: 0..1, unless `unit` says that it is no share."""
    stderr: Finite | None
    """Standard error over the items, in the same unit; None where none is known."""
    n: Count
    """Number of items."""
    shots: Count
    """Examples before each item."""
    limit: Count | None
    """Items per lm-eval task at most; None for all."""
    task_version: str
    """Version of the task's definition in lm-eval."""
    lm_eval_version: str
    """Version of lm-eval."""
    data_source: str
    """`repository@revision` of a hub data set, or the local file's name."""
    data_sha256: str | None
    """SHA-256 of the local file(s) of the items; of the rows' content for a hub data set."""
    tokenizer_sha256: str
    """SHA-256 of the tokenizer."""
    precision: str
    """Precision of the model that was scored."""
    note: str | None = None
    """A deviation from the benchmark's definition, to be printed beside the score."""
    temperature: Finite | None = None
    """Sampling temperature of generated responses; None where log-likelihoods were scored."""
    response_flags: Mapping[str, Count] = Field(
        default_factory=dict, validation_alias="pathologies", serialization_alias="pathologies"
    )
    """Number of items by flag that their response raises: see `harness.evaluation.paper`."""
    prompts_sha256: str | None = None
    """SHA-256 of the texts of all requests; None in records of older versions."""
    token_budget: Count | None = None
    """Tokens of a forward pass, padding included; in half precision it moves the low bits."""
    fallback: str | None = None
    """Why requests were not scored over the trie of their prefixes; None where all were."""
    scored_with: tuple[str, ...] = ()
    """Other benchmarks whose requests shared the batches."""
    bos: str | None = None
    """What the tokenizer puts before every text: `token 1`, or `none`."""
    content_sha256: str | None = None
    """SHA-256 of the content of the rows, in order and before any `limit`; a hub's copy and a local
    file of one version have the same."""
    unit: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the score counts where it is no share, such as `perplexity`; None of a share."""
    higher_is_better: bool = Field(default=True, exclude_if=lambda value: value)
    """lm-eval's direction of the metric."""
    form: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """How the prompts differ from the task's plain ones, such as `chat template`."""
    definition: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of what defines a task of the user's own; None of lm-eval's."""
    items: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """First digits of the SHA-256 of the items, in the names of all that belongs to this evaluation
    of its request alone; None in records of older versions, whose names have none."""

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        if self.unit is None and not 0 <= self.value <= LARGEST_SHARE:
            raise ValueError("a share must be from 0 to 1")
        return self

    @property
    def evaluation(self) -> str:
        """Name of the evaluation: its request's key, and which items were asked."""
        return self.key if self.items is None else f"{self.key}-{self.items}"

    def same_items(self, other: TaskScore) -> bool:
        """Whether both were made on the same items: of the same content, where it is recorded."""
        if None not in (self.content_sha256, other.content_sha256):
            return self.content_sha256 == other.content_sha256
        return self.data_sha256 == other.data_sha256


def evaluations(scores: Iterable[TaskScore]) -> list[tuple[TaskScore, ...]]:
    """Scores by benchmark, request and items, in the order of the first of each."""
    found: list[list[TaskScore]] = []
    for score in scores:
        request = score.benchmark, score.key
        for group in found:
            if (group[0].benchmark, group[0].key) == request and group[0].same_items(score):
                group.append(score)
                break
        else:
            found.append([score])
    return [tuple(group) for group in found]
