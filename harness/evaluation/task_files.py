"""lm-eval's task files (YAML), read without importing lm_eval: planning stays quick."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader


class _Loader(SafeLoader):
    """Reads `!function module.name` as its text."""


_Loader.add_constructor("!function", lambda _loader, node: node.value)


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
        return _read(folder / f"{name}.yaml")
    members = sorted(folder.glob(f"{name}_*.yaml"))
    return _read(members[0]) | {"dataset_name": None} if members else None


@cache
def subjects_of(place: str, name: str) -> tuple[frozenset[str], bool]:
    """The subjects that a group's members ask for, and whether it asks for every one of them.

    A group with a YAML of its own does; else it has the subjects of its data.
    """
    folder = folder_of(place)
    members = [_read(path).get("dataset_name") for path in folder.glob(f"{name}_*.yaml")]
    return frozenset(filter(None, members)), (folder / f"_{name}.yaml").is_file()


@cache
def _read(path: Path) -> dict[str, Any]:
    own: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    include = own.pop("include", None)
    return own if include is None else _read(path.parent / include) | own


@cache
def lm_eval_names() -> frozenset[str]:
    """The tasks and groups that lm-eval defines; reads all of its 14,000 files."""
    line = re.compile(r'^[\s"]*(?:task|group)"?:\s*["\']?([\w.-]+)["\']?\s*$', re.M)
    return frozenset(
        name
        for path in folder_of("lm_eval:tasks").rglob("*.yaml")
        for name in line.findall(path.read_text(encoding="utf-8", errors="replace"))
    )
