"""What a grid asks for: a benchmark, shots and a limit; its key, and the identity of its data.

Imports no torch, lm_eval or datasets, so that planning and reporting stay quick.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from harness.errors import DataError, did_you_mean, shortened
from harness.evaluation.benchmarks import BENCHMARKS, Benchmark, Decoding
from harness.evaluation.items import check_split
from harness.evaluation.task_files import lm_eval_names
from harness.records.files import sha256_of_files
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


class TaskSpec(Spec):
    """A benchmark that a grid asks for."""

    name: str
    """A key of BENCHMARKS."""
    shots: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Number of few-shot examples; the benchmark's own number where absent."""
    limit: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """The first so many items of each lm-eval task, in the order of the data set; all where absent.
    A group counts per member: `limit: 2` on mmlu takes 2 items of each of the 57 subjects. Scores
    with a limit are not the benchmark's: the limit is stored with them."""

    temperature: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Sampling temperature of generated responses: 0 takes the likeliest token. The benchmark's own
    where absent; scores with another one are not the benchmark's."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BENCHMARKS:
            raise ValueError(unknown_benchmark(name))
        return name

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.num_shots and self.benchmark.few_shot_split is None:
            raise ValueError(
                f"{self.name} takes no few-shot examples (its prompt is fixed): remove 'shots'"
            )
        if self.temperature is not None and self.benchmark.decoding is None:
            raise ValueError(
                f"{self.name} scores log-likelihoods and generates nothing: remove 'temperature'"
            )
        return self

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that `name` names."""
        return BENCHMARKS[self.name]

    @property
    def num_shots(self) -> int:
        """The number of few-shot examples, resolved."""
        return self.benchmark.shots if self.shots is None else self.shots

    @property
    def decoding(self) -> Decoding | None:
        """How responses are generated, resolved; None where none are."""
        own = self.benchmark.decoding
        if own is None or self.temperature is None:
            return own
        return replace(own, temperature=self.temperature)


def unknown_benchmark(name: object) -> str:
    """What is wrong with a name that is no benchmark here: lm-eval may have it, or a near one."""
    known = f"one of {', '.join(BENCHMARKS)}, or add an entry in harness/evaluation/benchmarks.py"
    if not isinstance(name, str):
        return f"a task needs a name; use {known}"
    theirs = lm_eval_names()
    if name in theirs:
        return f"lm-eval has '{name}', but zbench has no benchmark of that name; use {known}"
    hint = did_you_mean(name, BENCHMARKS)
    if not hint.startswith("; did you mean"):
        near = _near_of_theirs(name) if _near_of_theirs.cache_info().currsize < MOST_HINTS else []
        if near:
            hint = f"; lm-eval has '{near[0]}', of which zbench has no benchmark; use {known}"
    return f"no such task '{shortened(name)}'{hint}"


@cache
def _near_of_theirs(name: str) -> list[str]:
    # Of 14,000 names those that may be near: comparing all takes a tenth of a second.
    theirs = lm_eval_names()
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
    if task.decoding is not None:
        record |= {"decoding": asdict(task.decoding), "num_rows": DEFAULT_NUM_ROWS}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


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


def local_files(task: TaskSpec, data_root: Path) -> dict[str, Path]:
    """The files that a task reads, by split, fallbacks resolved.

    Raises:
        DataError: a file is missing.
    """
    paths = {}
    for split, name in task.benchmark.split_files(task.num_shots).items():
        places = [data_root / name, data_root / task.benchmark.fallbacks.get(split, name)]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise DataError(
                f"{places[0]}: no such file; {task.name} reads its {split} split from it "
                "(--data-root names the folder; leave it out to read the hub)"
            )
        paths[split] = found
    return paths


def check_items(task: TaskSpec, data_root: Path) -> None:
    """Checks that every row of a task's local files can be asked, before a model is loaded.

    Raises:
        DataError: a file is missing, or a row cannot be asked, or there are too few.
        Unreadable: a file cannot be read, or lacks a column, or one has a type that is not due.
    """
    for split, path in local_files(task, data_root).items():
        shots = task.num_shots if split == task.benchmark.few_shot_split else None
        check_split(task.benchmark, path.relative_to(data_root).as_posix(), path, num_shots=shots)


def uses_fallback(task: TaskSpec, files: Mapping[str, Path]) -> bool:
    """Whether one of `files` stands in for the benchmark's own."""
    fallbacks = task.benchmark.fallbacks
    return any(split in fallbacks and path.match(fallbacks[split]) for split, path in files.items())


def data_fingerprint(task: TaskSpec, data_root: Path | None) -> str | None:
    """The sha256 over the local files that a task reads, None where it reads the hub.

    Of one file it is the file's own sha256, of several that of their `<sha256>  <name>` lines.

    Raises:
        DataError: a file is missing.
    """
    if data_root is None:
        return None
    files = local_files(task, data_root)
    return sha256_of_files([files[split] for split in sorted(files)])
