"""Where lm-eval defines each of its 14,000 tasks, groups and tags; imports nothing of it.

What is found is kept in the user's cache folder until another lm-eval is installed: reading all of
its files takes two seconds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from harness.errors import StorageError
from harness.evaluation.task_files import folder_of, read_task
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import cache_folder, write_text

Kind = Literal["task", "group", "tag"]
SHIPPED = "harness:evaluation/forgetting/tasks"
"""Tasks that ship with this package and have no entry in `benchmarks`: their YAML says all."""
FORGETTING = {"forgetting": "General text", "demo_forgetting": "Demo general text"}
"""Those of them that score a text, for what was forgotten of it, with their titles."""
_FORM = 1
"""Of the stored index; another is made anew."""


@dataclass(frozen=True)
class Definition:
    """Where a name is defined."""

    kind: Kind
    path: Path | None
    """The YAML file; None of a tag."""
    members: tuple[str, ...] = ()
    """The tasks of a tag, sorted."""


def find_definition(name: str, include: str | None = None) -> Definition | None:
    """Where lm-eval, zbench or a folder of one's own defines a name; None where nothing does.

    As in lm-eval, a folder's own definition takes precedence.
    """
    if include is not None and (found := index_of_folder(Path(include)).get(name)):
        return found
    if (shipped := index_of_folder(folder_of(SHIPPED)).get(name)) is not None:
        return shipped
    return _definition(lm_eval_index().get(name))


def _definition(entry: Any) -> Definition | None:
    if not isinstance(entry, str):
        return None if entry is None else Definition("tag", None, tuple(entry))
    kind, _, path = entry.partition(":")
    root = folder_of("lm_eval:tasks")
    return Definition("group" if kind == "group" else "task", root / path)


@cache
def lm_eval_index() -> Mapping[str, str | list[str]]:
    """By name `kind:path below lm-eval's tasks`; the tasks of a tag as a list."""
    root = folder_of("lm_eval:tasks")
    key = f"{_FORM} {version('lm_eval')} {root} {root.stat().st_mtime_ns}"
    path = cache_folder() / "lm-eval-tasks.json"
    with contextlib.suppress(Unreadable, OSError, RuntimeError):
        stored = read_json_object(path)
        if stored.get("key") == key and isinstance(names := stored.get("names"), dict):
            return names
    found: dict[str, str | list[str]] = {}
    for name, one in _index(root).items():
        place = [*one.members] if one.path is None else one.path.relative_to(root).as_posix()
        found[name] = place if isinstance(place, list) else f"{one.kind}:{place}"
    with contextlib.suppress(StorageError, RuntimeError):  # without it, time is lost alone
        write_text(path, json.dumps({"key": key, "names": found}))
    return found


@cache
def index_of_folder(folder: Path) -> Mapping[str, Definition]:
    """What the YAML files below a folder of one's own define, by name."""
    return _index(folder)


def _index(root: Path) -> dict[str, Definition]:
    """As lm-eval's TaskIndex: files in the order of their paths, of two of a name the first."""
    found: dict[str, Definition] = {}
    tags: dict[str, set[str]] = {}
    for path, content in _files(root):
        kind: Kind = "group" if "group" in content and "class" not in content else "task"
        name = content.get(kind)
        if not isinstance(name, str) or name in found:
            continue
        found[name] = Definition(kind, path)
        own = content.get("tag") if kind == "task" else None
        for tag in own if isinstance(own, list) else [own] if own else []:
            tags.setdefault(str(tag), set()).add(name)
    for tag, members in tags.items():
        found.setdefault(tag, Definition("tag", None, tuple(sorted(members))))
    return found


def _files(root: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yields each YAML file of a task or group below a folder, with what it says."""
    for path in sorted(root.glob("**/*.yaml"), key=lambda one: one.as_posix()):
        if {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
            continue
        with contextlib.suppress(Unreadable):  # as lm-eval passes it over; see `folder_faults`
            yield path, read_task(path)
