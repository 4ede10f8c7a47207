"""The tasks that a name of lm-eval stands for, as its YAML says: one, a group's, or a tag's.

Groups are followed as lm-eval's TaskFactory does, with what they set otherwise for their members.
Imports nothing of lm-eval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.evaluation.task_files import read_task
from harness.evaluation.task_index import Definition, find_definition

GROUP_KEYS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata")
"""Of a group's YAML; its other keys are settings of its members."""
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Leaf:
    """One task."""

    name: str
    config: Settings
    """What its YAML says, with what the groups around it set otherwise."""


@dataclass(frozen=True)
class Tree:
    """What a name stands for."""

    leaves: tuple[Leaf, ...]
    group: Settings | None
    """A group's YAML; None of a single task."""
    files: tuple[Path, ...]
    """The YAML files of all its tasks and groups, without what these include."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tasks by the tags that groups list."""


class TreeFault(ValueError):
    """Why a name cannot be followed, in one line."""


def tree_of(name: str, include: str | None) -> Tree:
    """What a task or group stands for.

    Raises:
        TreeFault: a group lists what is not defined, or itself.
        Unreadable: a YAML file is at fault.
    """
    found = find_definition(name, include)
    assert found is not None
    assert found.path is not None
    walk = _Walk(include)
    leaves = {leaf.name: leaf for leaf in walk.leaves(name, found, {}, ())}
    group = read_task(found.path) if found.kind == "group" else None
    return Tree(tuple(leaves.values()), group, tuple(walk.files), walk.tags)


class _Walk:
    """Follows names to tasks; gathers the files and tags on the way."""

    def __init__(self, include: str | None) -> None:
        self._include = include
        self.files: dict[Path, None] = {}
        self.tags: dict[str, tuple[str, ...]] = {}

    def leaves(
        self, name: str, found: Definition, settings: Settings, around: tuple[str, ...]
    ) -> Iterator[Leaf]:
        if name in around:
            raise TreeFault(f"the group '{name}' lists itself, by way of {' and '.join(around)}")
        if found.path is None:
            self.tags[name] = found.members
            for member in found.members:
                yield from self._named(member, settings, (*around, name))
            return
        self.files[found.path] = None
        content = read_task(found.path)
        if found.kind == "task":
            yield Leaf(name, {**content, **settings})
        else:
            yield from self._group(name, content, settings, around)

    def _group(
        self, name: str, content: Settings, settings: Settings, around: tuple[str, ...]
    ) -> Iterator[Leaf]:
        own = {key: value for key, value in content.items() if key not in GROUP_KEYS}
        given = {**own, **settings}
        listed = content.get("task")
        for entry in listed if isinstance(listed, list) else [listed] if listed else []:
            if isinstance(entry, str):
                yield from self._named(entry, given, (*around, name))
                continue
            if not isinstance(entry, Mapping) or not {"group", "task"} & set(entry):
                raise TreeFault(f"the group '{name}' lists what is neither a task nor a group")
            member = str(entry.get("group", entry.get("task")))
            known = find_definition(member, self._include) is not None
            of_it = {**given, **{key: entry[key] for key in entry if key not in ("task", "group")}}
            if known:
                yield from self._named(member, of_it, (*around, name))
            elif "group" in entry:  # defined here
                yield from self._group(f"{name}::{member}", entry, given, (*around, name))
            else:
                yield Leaf(f"{name}::{member}", of_it)

    def _named(self, name: str, settings: Settings, around: tuple[str, ...]) -> Iterator[Leaf]:
        found = find_definition(name, self._include)
        if found is None:
            raise TreeFault(f"the group '{around[-1]}' lists '{name}', which nothing defines")
        yield from self.leaves(name, found, settings, around)
