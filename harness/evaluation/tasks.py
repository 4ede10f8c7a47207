"""What a grid asks for: a benchmark, shots and a limit; its key, and the identity of its data.

Imports no torch, lm_eval or datasets, so that planning and reporting stay quick.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from harness.errors import did_you_mean, shortened
from harness.evaluation.benchmark import Benchmark, Decoding
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.own_benchmarks import find_benchmark, takes_examples
from harness.evaluation.task_index import FORGETTING, index_of_folder, lm_eval_index
from harness.evaluation.task_tree import TreeFault
from harness.readers.files import Unreadable
from harness.spec import Spec

EVALUATION_RECIPE = 2
"""Part of every request key: raised when a change of this package's code changes scores."""

MOST_HINTS = 50
"""Misspelt names that are looked for among lm-eval's."""
DEFAULT_TOKEN_BUDGET = 4096
"""Tokens of a forward pass, padding included; part of every request key, because in half precision
the composition of batches moves the low bits of scores."""

DEFAULT_NUM_ROWS = 64
"""Responses that are generated side by side; part of the request key for the same reason."""


class LocalFile(Spec):
    """A local file of a task's split."""

    task: str
    """lm-eval's name of the task, or of the group that it is in."""
    split: str
    path: str
    """Absolute, or relative to the data root."""


def _is_unset(value: object) -> bool:
    return value is None


class TaskSpec(Spec):
    """A benchmark that a grid asks for."""

    include: SkipJsonSchema[str | None] = Field(default=None, exclude_if=_is_unset)
    """Folder of task YAMLs of one's own; the grid's `include`."""
    name: str
    """A task or group of lm-eval, or of `include`, or a key of BENCHMARKS."""
    shots: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Number of few-shot examples; the benchmark's own number where absent."""
    limit: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """The first so many items of each lm-eval task, in the order of the data set; all where absent.
    A group counts per member: `limit: 2` on mmlu takes 2 items of each of the 57 subjects. Scores
    with a limit are not the benchmark's: the limit is stored with them."""

    temperature: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Sampling temperature of generated responses: 0 takes the likeliest token. The benchmark's own
    where absent; scores with another one are not the benchmark's."""
    apply_chat_template: bool = Field(default=False, exclude_if=operator.not_)
    """Whether the prompt is a chat in the tokenizer's template, as in lm-eval."""
    fewshot_as_multiturn: bool | None = Field(default=None, exclude_if=_is_unset)
    """Whether few-shot examples are turns of that chat; lm-eval's default is true."""
    system_instruction: str | None = Field(default=None, exclude_if=_is_unset)
    """Text before all else, as in lm-eval; the system's turn of a chat."""
    files: SkipJsonSchema[tuple[LocalFile, ...]] = Field(default=(), exclude_if=operator.not_)
    """The local files of its tasks; from the grid's `local_data`."""
    allow_code_execution: SkipJsonSchema[bool] = Field(default=False, exclude_if=operator.not_)
    """Whether its scoring may run code that a model has written; the grid's."""

    cluster: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, exclude_if=_is_unset
    )
    """Column of its data that items of one source share, such as a passage, for clustered errors;
    no part of the request: nothing is scored again for it."""
    draw: SkipJsonSchema[Annotated[int, Field(ge=1)] | None] = Field(
        default=None, exclude_if=_is_unset
    )
    """Which further draw of sampled responses it is, as of a repeated training; the grid's own key
    of no task."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        try:
            known = find_benchmark(name, info.data.get("include"))
        except (TreeFault, Unreadable) as fault:
            raise ValueError(str(fault)) from fault
        if known is None:
            raise ValueError(unknown_benchmark(name, info.data.get("include")))
        return name

    @model_validator(mode="after")
    def _possible(self) -> Self:
        known = self.benchmark
        fixed = known.few_shot_split is None and not any(map(takes_examples, known.members))
        if self.shots and fixed:
            raise ValueError(
                f"{self.name} takes no few-shot examples (its prompt is fixed): remove 'shots'"
            )
        if self.temperature is not None and known.decoding is None:
            raise ValueError(
                f"{self.name} scores log-likelihoods and generates nothing: remove 'temperature'"
            )
        if known.protocol.generates and (self.apply_chat_template or self.system_instruction):
            raise ValueError(
                f"{self.name} has the prompts of its paper: remove 'apply_chat_template' and "
                "'system_instruction'"
            )
        if self.name in FORGETTING and (self.apply_chat_template or self.system_instruction):
            raise ValueError(
                f"{self.name} is of plain text: remove 'apply_chat_template' and "
                "'system_instruction'"
            )
        if self.fewshot_as_multiturn is not None and not self.apply_chat_template:
            raise ValueError("fewshot_as_multiturn needs 'apply_chat_template: true'; remove it")
        if known.unsafe_code and not self.allow_code_execution:
            raise ValueError(
                f"{self.name} runs the code that a model writes: set 'allow_code_execution: true' "
                "in the grid where that is safe, or remove it"
            )
        return self

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that `name` names."""
        found = find_benchmark(self.name, self.include)
        assert found is not None
        return found

    @property
    def num_shots(self) -> int:
        """The number of few-shot examples, resolved; in a group, the largest of its tasks."""
        known = self.benchmark
        if known.members:
            return max(member.num_shots(self.shots) for member in known.members)
        return known.shots if self.shots is None else self.shots

    @property
    def form(self) -> str | None:
        """How its prompts differ from the benchmark's plain ones, in words; None where they do not.

        Of a group whose tasks have their own numbers of examples, that is said here: `num_shots`
        is the largest of them.
        """
        found = ["chat template"] if self.apply_chat_template else []
        if self.fewshot_as_multiturn is False:
            found.append("examples in one turn")
        if self.system_instruction:
            digits = hashlib.sha256(self.system_instruction.encode()).hexdigest()[:8]
            found.append(f"system text {digits}")
        if len({member.num_shots(self.shots) for member in self.benchmark.members}) > 1:
            found.append("each task's own number of examples")
        return ", ".join(found) or None

    @property
    def decoding(self) -> Decoding | None:
        """How responses are generated, resolved; None where none are."""
        own = self.benchmark.decoding
        if own is None:
            return None
        if self.temperature is not None:
            own = replace(own, temperature=self.temperature)
        return own if self.draw is None else replace(own, seed=own.seed + self.draw)

    def drawn(self, draw: int) -> Self:
        """The same request with its responses drawn anew; as it is where nothing is sampled."""
        sampled = self.decoding is not None and self.decoding.temperature > 0
        return self.model_copy(update={"draw": draw}) if sampled else self

    def file(self, member: str, split: str) -> str | None:
        """The local file of a task's split, of those that the grid names."""
        found = {(one.task, one.split): one.path for one in self.files}
        return found.get((member, split)) or found.get((self.name, split))


def unknown_benchmark(name: object, include: str | None = None) -> str:
    """What is wrong with a name that is no benchmark: which ones are near."""
    if not isinstance(name, str):
        return "a task needs a name, such as arc_easy or any other of lm-eval's, or paper_arc_easy"
    own = index_of_folder(Path(include)) if include is not None else {}
    hint = did_you_mean(name, [*own, *BENCHMARKS, *FORGETTING])
    if not hint.startswith("; did you mean"):
        near = _near_of_theirs(name) if _near_of_theirs.cache_info().currsize < MOST_HINTS else []
        more = "" if include else "; tasks of your own need the grid's `include`"
        hint = f"; did you mean '{near[0]}' of lm-eval?" if near else f" of zbench or lm-eval{more}"
    return f"no such task '{shortened(name)}'{hint}"


@cache
def _near_of_theirs(name: str) -> list[str]:
    # Of 14,000 names those that may be near: comparing all takes a tenth of a second.
    theirs = lm_eval_index()
    likely = [other for other in theirs if other[0] == name[:1] and -4 < len(other) - len(name) < 4]
    return difflib.get_close_matches(name, likely, n=1, cutoff=0.8)


@cache
def lm_eval_version() -> str:
    """The installed lm-eval's version; imports nothing of it."""
    return version("lm_eval")


def request_key(task: TaskSpec, token_budget: int = DEFAULT_TOKEN_BUDGET) -> str:
    """What identifies a request for scores, known before anything runs.

    Two requests of the same key on the same weights, data and tokenizer give the same scores.
    """
    benchmark = task.benchmark
    record = {
        "recipe": EVALUATION_RECIPE,
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol.name,
        "shots": task.num_shots,
        "limit": task.limit,
        "metrics": list(benchmark.metrics),
        "token_budget": token_budget,
        "lm_eval": lm_eval_version(),
    }
    for name in ("apply_chat_template", "system_instruction"):
        if getattr(task, name):
            record[name] = getattr(task, name)
    if task.apply_chat_template:
        record["fewshot_as_multiturn"] = task.fewshot_as_multiturn is not False
    shots = [member.num_shots(task.shots) for member in benchmark.members]
    if len(set(shots)) > 1:  # a group whose tasks have their own numbers
        record["member_shots"] = shots
    if benchmark.definition is not None:
        record["definition"] = benchmark.definition
    if task.decoding is not None:
        record |= {"decoding": asdict(task.decoding), "num_rows": DEFAULT_NUM_ROWS}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def joined(tasks: Sequence[TaskSpec]) -> tuple[TaskSpec, ...]:
    """The tasks, each request once, in their order; one that names its clusters tells of them."""
    found: dict[TaskSpec, TaskSpec] = {}
    for task in tasks:
        request = task.model_copy(update={"cluster": None})
        if request not in found or found[request].cluster is None:
            found[request] = task
    return tuple(found.values())


def scored_together(tasks: Sequence[TaskSpec]) -> list[tuple[TaskSpec, ...]]:
    """The tasks in groups to be given to `evaluate_together`, in the order of the first.

    Tasks that have requests in common, such as TruthfulQA's mc1 and mc2, form one group.
    """
    groups: dict[object, list[TaskSpec]] = {}
    for task in tasks:
        shared = task.benchmark.shares_requests
        key = (shared, task.num_shots, task.limit) if shared else task
        groups.setdefault(key, []).append(task)
    return [tuple(group) for group in groups.values()]
