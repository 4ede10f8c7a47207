"""Where the data of a task lie: in local files, else on the hub; imports nothing heavy.

A benchmark with an entry in `benchmarks` reads the data root where there is one. Any other task
reads the files that the grid's `local_data` names, else `<data root>/<task>/<split>.parquet` (or
.jsonl, .json, .csv) where its items lie there, else the hub or its cache, as lm-eval does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.data.hub import NotHere, is_cached
from harness.errors import DataError, did_you_mean
from harness.evaluation.benchmark import Member
from harness.evaluation.data_files import PROSE_COLUMN, check_rows, check_texts, read_rows
from harness.evaluation.items import check_split
from harness.evaluation.own_benchmarks import files_at
from harness.evaluation.task_files import folder_of
from harness.evaluation.task_index import FORGETTING, SHIPPED, index_of_folder
from harness.evaluation.tasks import TaskSpec
from harness.records.files import sha256_of_files
from harness.records.prefetched import is_prefetched

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


def local_files(task: TaskSpec, data_root: Path | None) -> dict[str, Path]:
    """The local files that a task reads, by split, fallbacks resolved; none where it reads the hub.

    In a group each split's name stands behind its task's, as `mmlu_anatomy/test`.

    Raises:
        DataError: a file is missing.
    """
    if task.benchmark.members:
        one = len(task.benchmark.members) == 1
        return {
            split if one else f"{member}/{split}": path
            for member, files in member_files(task, data_root).items()
            for split, path in files.items()
        }
    if data_root is None and not task.files:
        return {}
    paths = {}
    for split, name in task.benchmark.split_files(task.num_shots).items():
        named = task.file(task.name, split)
        if named is not None:
            paths[split] = _named(task, split, named, data_root)
            continue
        if data_root is None:
            raise _no_split(task, task.name, split)
        places = [data_root / name, data_root / task.benchmark.fallbacks.get(split, name)]
        found = next((path for path in places if path.is_file()), None)
        if found is None and not paths and task.benchmark.hub and is_prefetched(data_root):
            return {}
        if found is None:
            raise DataError(
                f"{places[0]}: no such file; {task.name} reads its {split} split from it "
                "(--data-root names the folder; leave it out to read the hub)"
            )
        paths[split] = found
    return paths


def member_files(task: TaskSpec, data_root: Path | None) -> dict[str, dict[str, Path]]:
    """The local files of each of a task's members by split; none of those that read the hub.

    Raises:
        DataError: a file is missing, or one of the splits that are read is not named.
    """
    found = {}
    for member in task.benchmark.members:
        splits = splits_read(member, task)
        if {member.name, task.name} & {file.task for file in task.files}:
            paths = {}
            for split in splits:
                named = task.file(member.name, split)
                if named is None:
                    raise _no_split(task, member.name, split)
                paths[split] = _named(task, split, named, data_root)
            found[member.name] = paths
        elif data_root is not None and _known_place(data_root, member.name, member.eval_split):
            paths = {}
            for split in splits:
                path = _known_place(data_root, member.name, split)
                if path is None:
                    raise DataError(
                        f"{data_root / member.name / split}.parquet: no such file; {member.name} "
                        f"reads its {split} split from it (also .jsonl, .json or .csv)"
                    )
                paths[split] = path
            found[member.name] = paths
        elif (shipped := _shipped_rows(task, member)) is not None:
            found[member.name] = {member.eval_split: shipped}
    return found


def _shipped_rows(task: TaskSpec, member: Member) -> Path | None:
    """The rows that ship beside the YAML of a task of this package; None of all other tasks."""
    folder = folder_of(SHIPPED)
    is_own = task.benchmark.definition is not None
    if is_own or not member.files or member.name not in index_of_folder(folder):
        return None
    return folder / member.files[0]


def splits_read(member: Member, task: TaskSpec) -> list[str]:
    """The splits that a run reads: that of few-shot examples only if some are asked for."""
    examples = member.few_shot_split if member.num_shots(task.shots) else None
    return list(dict.fromkeys(filter(None, (member.eval_split, examples))))


def _known_place(data_root: Path, name: str, split: str) -> Path | None:
    places = (data_root / name / f"{split}{suffix}" for suffix in SUFFIXES)
    return next((path for path in places if path.is_file()), None)


def _no_split(task: TaskSpec, name: str, split: str) -> DataError:
    named = ", ".join(one.split for one in task.files)
    return DataError(
        f"local_data.{name}: names no file of the split '{split}', which {task.name} reads (it "
        f"names {named or 'none'}); add it"
    )


def _named(task: TaskSpec, split: str, named: str, data_root: Path | None) -> Path:
    """The file that local_data names: absolute, or under the data root."""
    path = Path(named)
    if not path.is_absolute() and data_root is not None:
        path = data_root / path
    if not path.is_file():
        where = "" if path.is_absolute() else " beside the grid file, and there is no --data-root"
        raise DataError(
            f"{path}: no such file{where}; local_data names it as the {split} split of {task.name}"
        )
    return path


def reads_local(task: TaskSpec, data_root: Path | None) -> bool:
    """Whether all of a task's data are local files.

    Raises:
        DataError: a file is missing.
    """
    return not list(_hub_members(task, data_root)) and bool(local_files(task, data_root))


def _hub_members(task: TaskSpec, data_root: Path | None) -> Iterator[Member]:
    local: Mapping[str, object] = member_files(task, data_root)
    yield from (member for member in task.benchmark.members if member.name not in local)


def hub_sources(task: TaskSpec, data_root: Path | None) -> list[str]:
    """The hub's repositories that a task reads.

    Raises:
        DataError: a local file is missing.
    """
    known = task.benchmark
    if not known.members:
        return [known.hub[0]] if known.hub and not local_files(task, data_root) else []
    hubs = (member.hub for member in _hub_members(task, data_root))
    return list(dict.fromkeys(hub[0] for hub in hubs if hub is not None))


def check_items(task: TaskSpec, data_root: Path | None) -> None:
    """Checks that a task's data can be had and asked, as far as this machine tells, before a model
    is loaded.

    Raises:
        DataError: a file or a data set is missing, or a row cannot be asked, or there are too few.
        Unreadable: a file cannot be read, or lacks a column, or one has a type that is not due.
    """
    known = task.benchmark
    _check_cluster(task, data_root)
    for source in hub_sources(task, data_root):
        if is_offline() and not is_cached(source):
            raise NotHere(
                f"{task.name}: its data ({source}) are not on this machine, and the network is "
                "switched off (HF_HUB_OFFLINE): name its files in local_data, or fetch them where "
                "there is network (`zbench prefetch GRID --to DIR`) and give --data-root DIR",
                f"benchmark {source}",
            )
    if known.members:
        _check_members(task, data_root)
        return
    for split, path in local_files(task, data_root).items():
        shots = task.num_shots if split == known.few_shot_split else None
        check_split(known, nominal_file(task, split, path, data_root), path, num_shots=shots)


def _check_cluster(task: TaskSpec, data_root: Path | None) -> None:
    """Refuses a `cluster` that is no column of the items, where they lie here."""
    if task.cluster is None:
        return
    for path in _item_files(task, data_root):
        columns = read_rows(path).column_names
        if task.cluster not in columns:
            hint = did_you_mean(task.cluster, columns)
            raise DataError(
                f"{path}: has no column '{task.cluster}', the `cluster` of {task.name}{hint}"
            )


def _item_files(task: TaskSpec, data_root: Path | None) -> list[Path]:
    """The local files that the items of a task come from."""
    known = task.benchmark
    if known.members:
        files = member_files(task, data_root)
        found = [files.get(one.name, {}).get(one.eval_split) for one in known.members]
    else:
        found = [local_files(task, data_root).get(known.eval_split)]
    return [path for path in found if path is not None]


def nominal_file(task: TaskSpec, split: str, path: Path, data_root: Path | None) -> str:
    """What a split's file is called under a data root, wherever it lies: its pin has that name."""
    if data_root is not None and path.is_relative_to(data_root):
        return path.relative_to(data_root).as_posix()
    return task.benchmark.files[split]


def _check_members(task: TaskSpec, data_root: Path | None) -> None:
    local = member_files(task, data_root)
    for member in task.benchmark.members:
        shots = member.num_shots(task.shots)
        for split, path in local.get(member.name, {}).items():
            examples = split == member.few_shot_split and bool(shots)
            # The item itself is not among its examples, where both come from one split.
            least = shots + (split == member.eval_split) if examples else 1
            what = "examples" if examples else "item"
            check_rows(path, member.name, member.columns, least=least, what=what)
            if member.name in FORGETTING and task.benchmark.definition is None:
                check_texts(path, member.name, PROSE_COLUMN)
        if member.name not in local and member.needs_files:
            raise DataError(f"{member.name}: {member.needs_files}")
        for place in () if member.name in local else member.files:
            if not files_at(place):
                raise DataError(
                    f"{place}: no such file; the YAML of {member.name} takes its rows from it (a "
                    "relative path begins where zbench is run)"
                )


def is_offline() -> bool:
    """Whether the user has switched the network off for the hub's client."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


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
    files = local_files(task, data_root)
    if not files or list(_hub_members(task, data_root)):
        return None
    return sha256_of_files([files[split] for split in sorted(files)])
