"""lm-eval's own task objects over local files or the hub, which keep what they have built.

The definitions (prompts, choices, metrics, few-shot sampling) are lm-eval's, unmodified: only
where the rows come from changes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import constants
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks import TaskManager, _factory
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.benchmarks import MACRO_METRIC
from harness.evaluation.chat import prompts_key
from harness.evaluation.items import columns_read
from harness.evaluation.local_data import read_split, subjects_in, undecoded
from harness.evaluation.own_benchmarks import SPLITS
from harness.evaluation.pictures import checked_picture
from harness.evaluation.task_data import is_offline, local_files, member_files
from harness.evaluation.task_files import folder_of
from harness.evaluation.task_tree import tree_of
from harness.evaluation.tasks import TaskSpec
from harness.records.prefetched import cached_snapshot, is_prefetched


class KeptTask(ConfigurableTask):
    """lm-eval's YAML task, which reads local files and keeps its documents and requests.

    The class attributes are set by `build_tasks` on a subclass, because lm-eval constructs tasks
    from a class and a configuration alone.
    """

    benchmark: Benchmark
    files: Mapping[str, Mapping[str, Path]]
    """Local file by task and split; a benchmark that `benchmarks` has an entry of has its own name
    for all of its tasks. A task that is not here reads the hub."""
    shots: int | None
    """As the grid asks for them."""
    dataset: Any
    prefetched: bool
    """Whether the data root is a prefetched one, whose copy of the hub is whole."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._kept_requests: list[Any] | None = None
        self._kept_for: Hashable = None
        self._pictures: dict[int, str | None] | None = None
        self.commits: dict[str, str] = {}  # of repositories that were read from a snapshot
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Sets `dataset`: from local files where there are, else as lm-eval does."""
        entry = not self.benchmark.members
        files = self.files.get(self.benchmark.name if entry else str(self.config.task))
        if files is None:
            self._download_or_find(dataset_kwargs, **kwargs)
            if entry:  # a task of one's own may look at pictures as Pillow's
                for name, rows in self.dataset.items():
                    self.dataset[name] = undecoded(rows)
            return
        self.dataset = {}
        examples = self.fewshot_cfg.split
        for split in (*(getattr(self.config, kind) for kind in SPLITS), examples):
            if split in files:
                self.dataset[split] = read_split(
                    files[split],
                    columns_read(self.benchmark, files[split]) if entry else None,
                    subject_column=self.benchmark.subject_column,
                    subject=self.config.dataset_name,
                )
            elif split is not None:
                # lm-eval lists few-shot documents even for 0 shots; nothing reads them.
                self.dataset[split] = Dataset.from_dict({})

    def _download_or_find(self, dataset_kwargs: dict[str, Any] | None, **kwargs: Any) -> None:
        """As lm-eval does. Without network, from the snapshot in the hub's cache: `datasets` alone
        would look in its own cache only, and take any revision that it finds there."""
        hub, name = Path(constants.HF_HUB_CACHE), str(self.config.dataset_path)
        revision = (dataset_kwargs or {}).get("revision") or "main"
        found = cached_snapshot(hub, "dataset", name, revision) if is_offline() else None
        if found is None:
            super().download(dataset_kwargs, **kwargs)
            return
        try:
            self.DATASET_PATH = str(found)
            super().download(dataset_kwargs, **kwargs)
            self.commits[name] = found.name
        except (OSError, ValueError, DatasetsError):  # a part, of what `datasets` built itself
            if self.prefetched:
                raise
            self.DATASET_PATH = name
            super().download(dataset_kwargs, **kwargs)
        finally:
            self.DATASET_PATH = name

    def fewshot_docs(self) -> Any:
        """The documents that examples are taken from; None where none are."""
        own = next((m for m in self.benchmark.members if m.name == self.config.task), None)
        if own is not None and not own.num_shots(self.shots):
            return None
        return super().fewshot_docs()

    @cached_property
    def eval_docs(self) -> Dataset:
        """The documents; `process_docs` runs once, not at each look."""
        return super().eval_docs

    def build_all_requests(self, **kwargs: Any) -> None:
        """Builds the requests the first time; then hands out the same ones, without answers."""
        wanted = prompts_key(kwargs)
        if self._kept_requests is None or self._kept_for != wanted:
            # As simple_evaluate seeds it: few-shot examples depend on the order of documents.
            self.set_fewshot_seed(DEFAULT_OTHER_SEED)
            # tqdm has no other switch here.
            with contextlib.redirect_stderr(io.StringIO()):
                super().build_all_requests(**kwargs)
            self._kept_requests, self._kept_for = list(self.instances), wanted
            self._pictures = None
        for request in self._kept_requests:
            request.resps, request.filtered_resps = [], {}
        self._instances = self._kept_requests

    @property
    def shows_pictures(self) -> bool:
        """Whether its items have pictures, or may have them."""
        return bool(self.config.doc_to_image)

    @property
    def pictures(self) -> Mapping[int, str | None]:
        """Each item's picture by the SHA-256 of its bytes, where requests are built.

        Raises:
            EvaluationError: one has several, or what is no picture.
        """
        if self._pictures is None:
            first: dict[int, Any] = {}
            for request in self.instances:
                first.setdefault(int(request.doc_id), request)
            self._pictures = {number: checked_picture(one) for number, one in first.items()}
        return self._pictures


def build_tasks(
    task: TaskSpec, data_root: Path | None
) -> tuple[dict[str, KeptTask], dict[str, Group]]:
    """The leaf tasks and the groups of a benchmark, by name; their data are read."""
    benchmark, name = task.benchmark, task.name
    if benchmark.members:
        index, files = _registry(task), member_files(task, data_root)
    else:
        # One folder is indexed, not lm-eval's 14,000 files.
        folder = folder_of(benchmark.task_folder)
        index = TaskManager(include_defaults=False, include_path=str(folder)).task_index
        here = local_files(task, data_root)
        files = {name: here} if here else {}
    own = {"benchmark": benchmark, "files": files, "shots": task.shots}
    own["prefetched"] = is_prefetched(data_root)
    known = _factory.ConfigurableTask
    try:  # lm-eval makes a task of a class and a configuration alone
        _factory.ConfigurableTask = type("KeptTask", (KeptTask,), own)
        return _built(task, index, files.get(name, {}))
    finally:
        _factory.ConfigurableTask = known


def _registry(task: TaskSpec) -> dict[str, Entry]:
    """lm-eval's index of what a task or group is made of, and of nothing else."""
    tree, index = tree_of(task.name, task.include), dict[str, Entry]()
    for path in tree.files:
        TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
    for tag, members in tree.tags.items():
        index[tag] = Entry(tag, Kind.TAG, None, tags=set(members))
    return index


def _built(
    task: TaskSpec, index: dict[str, Entry], files: Mapping[str, Path]
) -> tuple[dict[str, KeptTask], dict[str, Group]]:
    benchmark, name = task.benchmark, task.name
    build = partial(TaskFactory().build, registry=index)
    if name in index:
        built = build(index[name])
    else:  # the subjects that the local file has
        assert benchmark.subject_column is not None
        built = _subject_group(benchmark)
        for subject in subjects_in(files[benchmark.eval_split], benchmark.subject_column):
            member = f"{name}_{subject}"
            if member not in index:
                raise EvaluationError(f"{name}: no task '{member}' in {benchmark.task_folder}")
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
