"""Builds lm-eval's own task objects over hub or local data, once per process.

The definitions (prompts, choices, metrics, few-shot sampling) are lm-eval's, unmodified: only
where the rows come from changes, and what was built is kept for the next model.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from lm_eval.api.group import Group
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

from harness.data.pins import Content, Mismatch
from harness.errors import DataError, EvaluationError, ZbenchError
from harness.evaluation.chat import ChatTemplate
from harness.evaluation.data_files import rows_content
from harness.evaluation.data_versions import (
    columns_of,
    content_columns,
    local_contents,
    mismatches,
    split_content,
    task_content_sha256,
)
from harness.evaluation.kept_tasks import KeptTask, build_tasks
from harness.evaluation.local_data import undecoded
from harness.evaluation.task_data import (
    data_fingerprint,
    hub_sources,
    local_files,
    splits_read,
    uses_fallback,
)
from harness.evaluation.tasks import TaskSpec
from harness.evaluation.trial import first_line
from harness.models.devices import is_out_of_memory

logger = logging.getLogger(__name__)

CODE_VARIABLE = "HF_ALLOW_CODE_EVAL"
"""What the library that runs generated code asks for."""


@contextlib.contextmanager
def code_execution(*tasks: TaskSpec) -> Iterator[None]:
    """The context of what may run code that a model wrote: the variable its library asks for
    is set for a task that the grid allows it, and for no longer.
    """
    if not any(task.allow_code_execution for task in tasks):
        yield
        return
    before = os.environ.get(CODE_VARIABLE)
    os.environ[CODE_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CODE_VARIABLE]
        else:
            os.environ[CODE_VARIABLE] = before


@contextlib.contextmanager
def global_seeds() -> Iterator[None]:
    """The context of a task's own code, which may draw from the global random numbers (as gpqa's
    order of options): they begin as in `simple_evaluate`, and are left as they were.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _forget_task_modules() -> None:
    """The next task imports its code anew: a generator in it has drawn nothing for other tasks."""
    # lm-eval marks the modules that it has loaded for a YAML.
    for name, module in sys.modules.copy().items():  # in one piece: other threads import
        if "__mtime__" in getattr(module, "__dict__", ()):
            del sys.modules[name]


@dataclass(frozen=True)
class LoadedBenchmark:
    """lm-eval's objects of one benchmark, and the identity of its data."""

    task: TaskSpec
    tasks: Mapping[str, KeptTask]
    groups: Mapping[str, Group]
    data_source: str
    data_sha256: str | None
    note: str | None
    content_sha256: str
    mismatches: tuple[Mismatch, ...] = ()
    """Its splits that are not the pinned version."""

    def build_requests(self, chat_template: ChatTemplate | None = None) -> int:
        """Builds the requests where they are not built yet, and returns their number.

        Args:
            chat_template: renders a chat with the model's tokenizer (see `chat_template_of`); asked
                for where the task has `apply_chat_template`.

        Raises:
            EvaluationError: lm-eval cannot make prompts of the rows, or an item's picture is none.
        """
        settings = self.prompt_settings(chat_template)
        for name, member in self.tasks.items():
            try:
                with global_seeds():
                    member.build_all_requests(limit=self.task.limit, **settings)
            except Exception as fault:  # templates raise whatever a row's value makes them raise
                if is_out_of_memory(fault):
                    raise
                logger.debug("%s: no prompts", name, exc_info=True)
                raise EvaluationError(
                    f"{name}: lm-eval cannot make prompts of {self.data_source} ("
                    f"{_first_bad_row(member)}{first_line(fault)}); look for an empty or wrong cell"
                ) from fault
            if member.shows_pictures:
                _ = member.pictures  # which are looked at before anything is trained
        return sum(len(member.instances) for member in self.tasks.values())

    def prompt_settings(self, chat_template: ChatTemplate | None = None) -> dict[str, Any]:
        """What lm-eval is told of the prompts, beside the shots."""
        task = self.task
        settings: dict[str, Any] = {"system_instruction": task.system_instruction}
        if task.apply_chat_template:
            settings |= {
                "apply_chat_template": True,
                "fewshot_as_multiturn": task.fewshot_as_multiturn is not False,
                "chat_template": chat_template,
            }
        return settings


def load_benchmark(task: TaskSpec, data_root: Path | None) -> LoadedBenchmark:
    """The task objects of a benchmark, the same ones for the same data.

    Raises:
        DataError: a local file is missing or broken, or the hub cannot be read.
        EvaluationError: lm-eval cannot make its prompts from the data.
    """
    return _load(task, data_root, data_fingerprint(task, data_root))


@cache
def _load(task: TaskSpec, data_root: Path | None, fingerprint: str | None) -> LoadedBenchmark:
    benchmark = task.benchmark
    files = local_files(task, data_root)
    if not files and benchmark.hub is None and not benchmark.members:
        raise DataError(
            f"{task.name}: its items are on no hub; name the folder that holds "
            f"{benchmark.files[benchmark.eval_split]} with --data-root"
        )
    sources = hub_sources(task, data_root)
    _forget_task_modules()
    # The bars of data sets are not shown.
    with code_execution(task), global_seeds(), contextlib.redirect_stderr(io.StringIO()):
        try:
            tasks, groups = build_tasks(task, data_root)
        except ZbenchError:
            raise
        except Exception as fault:  # of data sets, the hub's client, Arrow, lm-eval: of any kind
            if is_out_of_memory(fault):
                raise
            logger.debug("%s cannot be loaded", task.name, exc_info=True)
            raise _not_loaded(task, files, sources, fault) from fault
    for member in tasks.values():
        _set_shots(member, task)
    if sources or not files:
        hub = [f"{name}@{_hub_commit(tasks, name)}" for name in sources]
        source = " + ".join([*hub, *(_short(path) for path in files.values())]) or "its own code"
        place, contents = f"hub: {source}", _hub_contents(task, tasks)
    else:
        source = " + ".join(map(_short, files.values()))
        place, contents = str(data_root or ""), local_contents(task, data_root)
    return LoadedBenchmark(
        task=task,
        tasks=tasks,
        groups=groups,
        data_source=source,
        data_sha256=fingerprint or _rows_sha256(tasks, task.num_shots),
        note=benchmark.fallback_note if files and uses_fallback(task, files) else None,
        content_sha256=task_content_sha256(contents),
        mismatches=tuple(mismatches(benchmark, contents, place)),
    )


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _not_loaded(
    task: TaskSpec, files: Mapping[str, Path], sources: Sequence[str], fault: Exception
) -> ZbenchError:
    """Why a task's objects cannot be made, in one line."""
    reason = first_line(fault)
    if isinstance(fault, ImportError):
        return EvaluationError(f"{task.name}: its code needs what is not installed ({reason})")
    if sources:
        return DataError(
            f"{task.name}: cannot read {', '.join(sources)} from the hub ({reason}); allow network "
            "access, fill the hub's cache, or give local files with local_data or --data-root"
        )
    split = task.benchmark.eval_split
    place = files.get(split) or next(iter(files.values()), None)
    return EvaluationError(
        f"{place}: lm-eval cannot read it as {task.name} ({reason})"
        if place is not None
        else f"{task.name}: lm-eval cannot load it ({reason})"
    )


def _hub_contents(task: TaskSpec, tasks: Mapping[str, KeptTask]) -> dict[str, tuple[str, Content]]:
    """What each split holds that was read from the hub: of all subjects together."""
    found = {}
    for member in task.benchmark.members:
        for split in splits_read(member, task):
            place, rows = f"{member.name}/{split}", tasks[member.name].dataset[split]
            found[place] = place, rows_content(undecoded(rows).to_list())
    if found:
        return found
    for split, file in task.benchmark.split_files(task.num_shots).items():
        available = next(iter(tasks.values())).dataset[split].column_names
        columns = columns_of(task.benchmark, file, available)
        wanted = content_columns(task.benchmark, file, available)
        rows = [
            row
            for member in tasks.values()
            for row in member.dataset[split].select_columns(wanted).to_list()
        ]
        found[split] = file, split_content(task.benchmark, columns, rows)
    return found


def _first_bad_row(member: KeptTask) -> str:
    """Which row a task cannot make a prompt of, as the beginning of a reason; else nothing."""
    for number, doc in enumerate(member.eval_docs):
        try:
            member.doc_to_text(doc)
            member.doc_to_target(doc)
            if member.config.doc_to_choice is not None:
                member.doc_to_choice(doc)
        except Exception as fault:  # whatever a template raises
            logger.debug("row %d", number, exc_info=fault)
            return f"row {number}, the first is 0: "
    return ""


def _set_shots(member: KeptTask, task: TaskSpec) -> None:
    """Sets the number of few-shot examples by the rule of lm-eval's simple_evaluate."""
    own = {one.name: one.num_shots(task.shots) for one in task.benchmark.members}
    shots = own.get(member.task_name, task.num_shots)
    member.set_config(key="num_fewshot", value=shots)
    available = len(member.sampler.df) if shots else 0
    if available < shots:
        raise EvaluationError(
            f"{task.name}: {shots} few-shot examples are asked for, and "
            f"{member.task_name} has {available}; lower 'shots'"
        )


def _shots(member: KeptTask, num_shots: int) -> int:
    return int(member.config.num_fewshot or 0) if member.benchmark.members else num_shots


def _hub_commit(tasks: Mapping[str, KeptTask], source: str) -> str:
    """The commit that a repository's files came from, as their addresses say it; else `main`."""
    splits = [split for task in tasks.values() for split in task.dataset.values()]
    addresses = (str(one) for split in splits for one in split.info.download_checksums or {})
    of_it = (one for one in addresses if "@" in one and f"/{source}@" in f"/{one}")
    cached = next((task.commits[source] for task in tasks.values() if source in task.commits), None)
    return cached or next((one.split("@")[1].partition("/")[0] for one in of_it), "main")


def _rows_sha256(tasks: Mapping[str, KeptTask], num_shots: int) -> str:
    """The sha256 of the rows' content: the documents, and the few-shot pool where it is used."""
    digest = hashlib.sha256()
    for name, task in sorted(tasks.items()):
        digest.update(name.encode())
        for docs in (task.eval_docs, task.sampler.df if _shots(task, num_shots) else ()):
            for doc in undecoded(docs) if isinstance(docs, Dataset) else docs:
                digest.update(json.dumps(doc, sort_keys=True, default=str).encode())
    return digest.hexdigest()
