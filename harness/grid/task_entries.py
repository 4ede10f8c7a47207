"""The benchmarks of a grid file: its tasks, the folder of one's own, and their local data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.errors import did_you_mean
from harness.evaluation.own_benchmarks import find_benchmark, members_of
from harness.evaluation.task_files import read_task
from harness.evaluation.task_index import index_of_folder
from harness.evaluation.task_tree import TreeFault
from harness.evaluation.tasks import LocalFile, TaskSpec, unknown_benchmark
from harness.readers.files import Unreadable, user_path
from harness.spec import Fault, Faults

GIVEN = ("include", "files", "allow_code_execution")
"""Fields of a TaskSpec that the grid's own keys fill."""


class TaskContext(Protocol):
    """What a grid file says of all its tasks."""

    folder: Path
    include: str | None
    local_data: dict[str, dict[str, str]]
    allow_code_execution: bool


def include_folder(raw: Any, folder: Path) -> str:
    """The folder of task YAMLs that `include` names: absolute, `~`, or beside the grid file."""
    if not isinstance(raw, str) or not raw:
        raise Fault("must be the path of a folder with task YAMLs")
    path = (folder / user_path(raw)).resolve()
    if not path.is_dir():
        raise Fault(f"no folder {path}")
    faults = Faults()
    if not index_of_folder(path):
        faults.add(f"{path} defines no task: put YAML files with a `task:` or `group:` into it")
    for file in sorted(path.glob("**/*.yaml")):
        try:
            content = read_task(file)
            if "task" not in content and "group" not in content:
                faults.add(f"{file}: names neither a task nor a group; give its `task:`")
        except Unreadable as fault:
            faults.add(str(fault))
    faults.check()
    return str(path)


def local_data(raw: Any, folder: Path) -> dict[str, dict[str, str]]:
    """The files of tasks by split: an absolute path where one lies, else as it is written, which
    is then looked for under the data root.
    """
    if not isinstance(raw, Mapping):
        raise Fault("must be a mapping of tasks to their splits' files")
    found: dict[str, dict[str, str]] = {}
    faults = Faults()
    for task, splits in raw.items():
        if not isinstance(splits, Mapping) or not splits:
            faults.add("must be a mapping of splits to files, as {test: FILE}", str(task))
            continue
        for split, path in splits.items():
            if not isinstance(path, str) or not path:
                faults.add("must be the path of a file", str(task), str(split))
                continue
            expanded = user_path(path)
            beside = folder / expanded
            place = beside.resolve() if beside.exists() else expanded
            found.setdefault(str(task), {})[str(split)] = str(place)
    faults.check()
    return found


def read_tasks(raw: Any, context: TaskContext) -> list[TaskSpec]:
    """What a list of tasks means: a tag, and a group without a score, are their members."""
    if not isinstance(raw, list | tuple):
        raise Fault("must be a list")
    if not raw:
        raise Fault("is empty; add at least one")
    found: list[TaskSpec] = []
    faults = Faults()
    for index, entry in enumerate(raw):
        try:
            for record in _records(entry, context):
                spec = faults.validate(TaskSpec, record, index)
                found += [] if spec is None else [_with_files(spec, context)]
        except Fault as fault:
            faults.add(str(fault), index)
    faults.check()
    names = [task.name for task in found]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.add(f"'{name}' stands {names.count(name)} times; keep one")
    faults.check()
    return found


def _records(entry: Any, context: TaskContext) -> Iterator[dict[str, Any]]:
    record = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(record, Mapping):
        raise Fault("must be a benchmark's name, or a mapping with its `name`")
    name = record.get("name")
    if not isinstance(name, str):
        raise Fault(unknown_benchmark(name))
    for key in GIVEN:
        if key in record:
            raise Fault(f"'{key}' is a key of the grid, not of a task; set it there")
    if "draw" in record:
        raise Fault("'draw' is none of its keys: responses are drawn anew by `noise` of the grid")
    try:
        names = members_of(name, context.include) or [name]
        for one in names:
            if find_benchmark(one, context.include) is None:
                raise Fault(unknown_benchmark(one, context.include))
    except (TreeFault, Unreadable) as fault:
        raise Fault(str(fault)) from fault
    own: dict[str, Any] = {"include": context.include} if context.include else {}
    if context.allow_code_execution:
        own["allow_code_execution"] = True
    yield from ({**record, **own, "name": one} for one in names)


def _with_files(spec: TaskSpec, context: TaskContext) -> TaskSpec:
    """A task with its local files, and without what of the grid's own keys says nothing of it."""
    members = {spec.name, *(member.name for member in spec.benchmark.members)}
    files = tuple(
        LocalFile(task=task, split=split, path=path)
        for task, splits in context.local_data.items()
        if task in members
        for split, path in splits.items()
    )
    update: dict[str, Any] = {"files": files} if files else {}
    if context.include and spec.benchmark.definition is None and not _refers_to(spec, context):
        update["include"] = None  # lm-eval's own: the same request with and without the folder
    if not spec.benchmark.unsafe_code:
        update["allow_code_execution"] = False
    return spec.model_copy(update=update)


def _refers_to(spec: TaskSpec, context: TaskContext) -> bool:
    own = index_of_folder(Path(str(context.include)))
    return any(member.name in own for member in spec.benchmark.members)


def unused_local_data(named: Iterable[str], tasks: Sequence[TaskSpec]) -> list[tuple[str, str]]:
    """Tasks that `local_data` names and the grid does not ask for, each with what to say."""
    known = dict.fromkeys(task.name for task in tasks)
    known |= dict.fromkeys(one.name for task in tasks for one in task.benchmark.members)
    return [
        (name, f"no task '{name}' in this grid{did_you_mean(name, known)}")
        for name in named
        if name not in known
    ]
