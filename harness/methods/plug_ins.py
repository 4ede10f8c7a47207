"""Methods of other packages, by the entry points `zbench.methods`; imported at their first use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, wraps
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import MethodError, did_you_mean, one_line
from harness.methods.method import Method

GROUP = "zbench.methods"
"""Group of the entry points; each points to a `Method` and has that method's name."""
ADVICE = "correct the package, or uninstall it"
RENAMED = {
    "harness.checkpoint": "shape_of from harness.methods",
    "harness.families": "FAMILIES from harness.methods",
    "harness.method_laws": "MethodLaws from harness.testing",
    "harness.methods.peft_adapter": "insert_adapter from harness.methods",
    "harness.recipe": "ALPACA_LORA, PAPER_PROMPTS or STANFORD_ALPACA from harness.methods",
}
"""Modules that plug-ins were told to import from once, and what stands in their place."""


class Registry(Mapping[str, Method]):
    """Methods by name: zbench's own, then those of other packages in the order of their names.

    Names are read from the packages' metadata. A package is imported when its method is asked for,
    so that a broken one stops nothing but the grids that use it.
    """

    def __init__(self, own: Iterable[Method]) -> None:
        self._own = {method.name: method for method in own}
        self._imported: dict[str, Method] = {}

    def __getitem__(self, name: str) -> Method:
        """The method of a name.

        Raises:
            KeyError: there is none; the line says which there are.
            MethodError: the name stands for several methods, or its package is broken.
        """
        if name not in self:
            raise KeyError(f"no such method '{name}'{did_you_mean(str(name), self)}")
        entries = self._entry_points.get(name)
        if not entries:
            return self._own[name]
        if name in self._own or len(entries) > 1:
            places = " and ".join(_place(entry) for entry in entries)
            raise MethodError(f"{places}: there is a method '{name}' already; {ADVICE}")
        if name not in self._imported:
            self._imported[name] = _load(entries[0])
        return self._imported[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(self._entry_points.keys() - self._own.keys())

    def __len__(self) -> int:
        return len(self._own.keys() | self._entry_points.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._entry_points

    @cached_property
    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=GROUP):
            found.setdefault(entry.name, []).append(entry)
        return found


def _load(entry: EntryPoint) -> Method:
    place, value = _place(entry), entry.value
    try:
        method = entry.load()
    except Exception as fault:
        raise MethodError(
            f"{place}: {value} cannot be imported ({_cause(fault)}); {ADVICE}"
        ) from fault
    if not isinstance(method, Method):
        kind = type(method).__name__
        raise MethodError(f"{place}: {value} is {kind}, not a harness.methods.Method; {ADVICE}")
    if method.name != entry.name:
        raise MethodError(
            f"{place}: the method of {value} is called '{method.name}'; give the entry point and "
            "the method one name"
        )
    apply = method.apply

    @wraps(apply)
    def applied(*arguments: Any) -> Any:
        try:
            return apply(*arguments)
        except ModuleNotFoundError as fault:  # heavy imports stand inside of `apply`
            raise MethodError(f"{place}: {_cause(fault)}; {ADVICE}") from fault

    return replace(method, apply=applied)


def _place(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "a package"
    return f"{package}: entry point '{entry.name}' of {GROUP}"


def _cause(fault: Exception) -> str:
    if isinstance(fault, ModuleNotFoundError) and fault.name in RENAMED:
        return f"{fault.name}: import {RENAMED[fault.name]} instead"
    return f"{type(fault).__name__}: {one_line(fault)}"
