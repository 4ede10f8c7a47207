"""lm-eval's task files (YAML), read without importing lm_eval: planning stays quick."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from harness.errors import one_line
from harness.readers.files import Unreadable

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader


class Function(str):
    """A function that a YAML file names, as `module.name`."""


class _Loader(SafeLoader):
    """Reads `!function module.name` as a Function."""


_Loader.add_constructor("!function", lambda _loader, node: Function(node.value))


@cache
def folder_of(place: str) -> Path:
    """The folder of `package:folder`, such as `lm_eval:tasks/arc`; imports nothing."""
    package, _, folder = place.partition(":")
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / folder


def find_task(place: str, name: str) -> dict[str, Any] | None:
    """What the YAML of a task says, with its includes; None where there is no such file.

    A file has the name of its task. A group stands for its members, whose names begin with its own:
    what the first of them says, without its own part of the data.
    """
    folder = folder_of(place)
    if (folder / f"{name}.yaml").is_file():
        return read_task(folder / f"{name}.yaml")
    members = sorted(folder.glob(f"{name}_*.yaml"))
    return read_task(members[0]) | {"dataset_name": None} if members else None


@cache
def subjects_of(place: str, name: str) -> tuple[frozenset[str], bool]:
    """The subjects that a group's members ask for, and whether it asks for every one of them.

    A group with a YAML of its own does; else it has the subjects of its data.
    """
    folder = folder_of(place)
    members = [read_task(path).get("dataset_name") for path in folder.glob(f"{name}_*.yaml")]
    return frozenset(filter(None, members)), (folder / f"_{name}.yaml").is_file()


@cache
def read_task(path: Path) -> dict[str, Any]:
    """What a task's or group's YAML file says, with its includes; `!function` as its text.

    Raises:
        Unreadable: it, or what it includes, cannot be read, or is no mapping.
    """
    return _read(path, ())


def _read(path: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    own = dict(_read_alone(path))
    include = own.pop("include", None)
    merged: dict[str, Any] = {}
    for name in include if isinstance(include, list) else [include] if include else []:
        other = (path.parent / str(name)).resolve()
        if other in (*within, path):
            raise Unreadable(path, "content", f"includes itself, by {name}")
        merged |= _read(other, (*within, path))
        merged.pop("task_list", None)
    return merged | own


def files_of(path: Path) -> set[Path]:
    """A YAML file, and those that it includes."""
    include = _read_alone(path).get("include")
    names = include if isinstance(include, list) else [include] if include else []
    return {path}.union(*(files_of((path.parent / str(name)).resolve()) for name in names))


@cache
def _read_alone(path: Path) -> dict[str, Any]:
    try:
        own = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as fault:
        raise Unreadable(path, "content", f"cannot be read ({one_line(fault)})") from fault
    except yaml.YAMLError as fault:
        raise Unreadable(path, "content", f"is no YAML ({one_line(fault)})") from fault
    if not isinstance(own, dict):
        raise Unreadable(path, "content", "is no mapping of keys to values")
    return own
