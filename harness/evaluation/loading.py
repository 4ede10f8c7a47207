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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from harness.data.pins import Content, Mismatch
from harness.errors import DataError, EvaluationError, ZbenchError
from harness.evaluation.benchmarks import MACRO_METRIC, Benchmark
from harness.evaluation.data_versions import (
    columns_of,
    local_contents,
    mismatches,
    split_content,
    task_content_sha256,
)
from harness.evaluation.local_data import read_split, subjects_in
from harness.evaluation.task_files import folder_of
from harness.evaluation.tasks import TaskSpec, data_fingerprint, local_files, uses_fallback
from harness.evaluation.trial import first_line
from harness.models.devices import is_out_of_memory

logger = logging.getLogger(__name__)


class KeptTask(ConfigurableTask):
    """lm-eval's YAML task, which reads local files and keeps its documents and requests.

    The class attributes are set by `load_benchmark` on a subclass, because lm-eval constructs tasks
    from a class and a configuration alone.
    """

    benchmark: Benchmark
    files: Mapping[str, Path] | None
    """Local file by split; None for the hub."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._kept_requests: list[Any] | None = None
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Sets `dataset`: from local files where there are, else as lm-eval does."""
        if self.files is None:
            super().download(dataset_kwargs, **kwargs)
            return
        self.dataset = {}
        for kind in ("training_split", "validation_split", "test_split", "fewshot_split"):
            split = getattr(self.config, kind)
            if split in self.files:
                self.dataset[split] = read_split(
                    self.files[split],
                    self.benchmark.columns,
                    subject_column=self.benchmark.subject_column,
                    subject=self.config.dataset_name,
                )
            elif split is not None:
                # lm-eval lists few-shot documents even for 0 shots; nothing reads them.
                self.dataset[split] = Dataset.from_dict({})

    @cached_property
    def eval_docs(self) -> Dataset:
        """The documents; `process_docs` runs once, not at each look."""
        return super().eval_docs

    def build_all_requests(self, **kwargs: Any) -> None:
        """Builds the requests the first time; then hands out the same ones, without answers."""
        if self._kept_requests is None:
            # As simple_evaluate seeds it: few-shot examples depend on the order of documents.
            self.set_fewshot_seed(DEFAULT_OTHER_SEED)
            # tqdm has no other switch here.
            with contextlib.redirect_stderr(io.StringIO()):
                super().build_all_requests(**kwargs)
            self._kept_requests = list(self.instances)
        for request in self._kept_requests:
            request.resps, request.filtered_resps = [], {}
        self._instances = self._kept_requests


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

    def build_requests(self) -> int:
        """Builds the requests where they are not built yet, and returns their number.

        Raises:
            EvaluationError: lm-eval cannot make prompts of the rows.
        """
        for name, member in self.tasks.items():
            try:
                member.build_all_requests(limit=self.task.limit)
            except Exception as fault:  # templates raise whatever a row's value makes them raise
                if is_out_of_memory(fault):
                    raise
                logger.debug("%s: no prompts", name, exc_info=True)
                raise EvaluationError(
                    f"{name}: lm-eval cannot make prompts of {self.data_source} "
                    f"({first_line(fault)}); look for an empty or wrong cell"
                ) from fault
        return sum(len(member.instances) for member in self.tasks.values())


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
    if data_root is None and benchmark.hub is None:
        raise DataError(
            f"{task.name}: its items are on no hub; name the folder that holds "
            f"{benchmark.files[benchmark.eval_split]} with --data-root"
        )
    files = None if data_root is None else local_files(task, data_root)
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bars of data sets
        try:
            tasks, groups = _build(benchmark, files)
        except ZbenchError:
            raise
        except Exception as fault:  # of data sets, the hub's client, Arrow, lm-eval: of any kind
            if is_out_of_memory(fault):
                raise
            logger.debug("%s cannot be loaded", task.name, exc_info=True)
            reason = first_line(fault)
            if files is not None:
                raise EvaluationError(
                    f"{files[benchmark.eval_split]}: lm-eval cannot read it as {task.name} "
                    f"({reason})"
                ) from fault
            assert benchmark.hub is not None
            raise DataError(
                f"{task.name}: cannot read {benchmark.hub[0]} from the hub ({reason}); allow "
                "network access, fill the hub's cache, or give local files with --data-root"
            ) from fault
    for member in tasks.values():
        _set_shots(member, task)
    if data_root is None or files is None:
        assert benchmark.hub is not None
        source = f"{benchmark.hub[0]}@{_hub_commit(tasks)}"
        place, contents = f"hub: {source}", _hub_contents(task, tasks)
    else:
        source = " + ".join(f"{path.parent.name}/{path.name}" for path in files.values())
        place, contents = str(data_root), local_contents(task, data_root)
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


def _hub_contents(task: TaskSpec, tasks: Mapping[str, KeptTask]) -> dict[str, tuple[str, Content]]:
    """What each split holds that was read from the hub: of all subjects together."""
    found = {}
    for split, file in task.benchmark.split_files(task.num_shots).items():
        available = next(iter(tasks.values())).dataset[split].column_names
        columns = columns_of(task.benchmark, file, available)
        rows = [
            row
            for member in tasks.values()
            for row in member.dataset[split].select_columns(list(columns)).to_list()
        ]
        found[split] = file, split_content(task.benchmark, columns, rows)
    return found


def _build(
    benchmark: Benchmark, files: Mapping[str, Path] | None
) -> tuple[dict[str, KeptTask], dict[str, Group]]:
    """The leaf tasks and the groups of a benchmark, by name."""
    name, folder = benchmark.name, folder_of(benchmark.task_folder)
    # One folder is indexed, not lm-eval's 14,000 files.
    index = TaskManager(include_defaults=False, include_path=str(folder)).task_index
    own_class = type("KeptTask", (KeptTask,), {"benchmark": benchmark, "files": files})
    build = partial(TaskFactory().build, overrides={"class": own_class}, registry=index)
    if name in index:
        built = build(index[name])
    else:  # the subjects that the local file has
        assert files is not None
        assert benchmark.subject_column is not None
        built = _subject_group(benchmark)
        for subject in subjects_in(files[benchmark.eval_split], benchmark.subject_column):
            member = f"{name}_{subject}"
            if member not in index:
                raise EvaluationError(f"{name}: no task '{member}' in {folder}")
            built.add(build(index[member]))
    if not isinstance(built, Group):
        return {built.task_name: built}, {}
    groups = [built, *built.get_all_groups()]
    return {task.task_name: task for task in built.get_all_tasks()}, {g.name: g for g in groups}


def _subject_group(benchmark: Benchmark) -> Group:
    """A group without a YAML of its own: the micro mean over its subjects, as in lm-eval's mmlu."""
    metrics = [metric for metric in benchmark.metrics if metric != MACRO_METRIC]
    means = [{"metric": metric, "weight_by_size": True} for metric in metrics]
    return Group.from_config(
        {"group": benchmark.name, "aggregate_metric_list": means, "metadata": {"version": 1}}
    )


def _set_shots(member: KeptTask, task: TaskSpec) -> None:
    """Sets the number of few-shot examples by the rule of lm-eval's simple_evaluate."""
    member.set_config(key="num_fewshot", value=task.num_shots)
    available = len(member.sampler.df) if task.num_shots else 0
    if available < task.num_shots:
        raise EvaluationError(
            f"{task.name}: {task.num_shots} few-shot examples are asked for, and "
            f"{member.task_name} has {available}; lower 'shots'"
        )


def _hub_commit(tasks: Mapping[str, KeptTask]) -> str:
    """The commit that the hub's files came from, as their addresses say it; else `main`."""
    splits = [split for task in tasks.values() for split in task.dataset.values()]
    addresses = (str(one) for split in splits for one in split.info.download_checksums or {})
    return next((one.split("@")[1].partition("/")[0] for one in addresses if "@" in one), "main")


def _rows_sha256(tasks: Mapping[str, KeptTask], num_shots: int) -> str:
    """The sha256 of the rows' content: the documents, and the few-shot pool where it is used."""
    digest = hashlib.sha256()
    for name, task in sorted(tasks.items()):
        digest.update(name.encode())
        for docs in (task.eval_docs, task.sampler.df if num_shots else ()):
            for doc in docs:
                digest.update(json.dumps(doc, sort_keys=True, default=str).encode())
    return digest.hexdigest()
