"""Methods of other packages, by the entry points `zbench.methods`; imported at their first use."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, wraps
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

from harness.errors import MethodError, ZbenchError, did_you_mean, one_line, printable
from harness.methods.method import Method, MethodOptions
from harness.models.devices import is_out_of_memory

logger = logging.getLogger(__name__)
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
    so that a broken one stops nothing but the grids that use it; `broken` names it. A name that
    zbench has itself stands for zbench's method.
    """

    def __init__(self, own: Iterable[Method]) -> None:
        self._own = {method.name: method for method in own}
        self._imported: dict[str, Method] = {}
        self._unread: list[str] = []

    def __getitem__(self, name: str) -> Method:
        """The method of a name.

        Raises:
            KeyError: there is none; the line says which there are.
            MethodError: the name stands for several methods, or its package is broken.
        """
        if name in self._own:
            return self._own[name]
        if name not in self:
            raise KeyError(f"no such method '{name}'{did_you_mean(str(name), self)}")
        entries = self._entry_points[name]
        if len(entries) > 1:
            places = " and ".join(sorted(map(_place, entries)))
            raise MethodError(f"{places}: both have a method '{name}'; {ADVICE}")
        if name not in self._imported:
            self._imported[name] = _load(entries[0])
        return self._imported[name]

    @property
    def own(self) -> Mapping[str, Method]:
        """zbench's own methods, without those of other packages."""
        return self._own

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(self._entry_points.keys() - self._own.keys())

    def __len__(self) -> int:
        return len(self._own.keys() | self._entry_points.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._entry_points

    def broken(self) -> list[str]:
        """What is wrong with the packages that have methods, one line each; imports them."""
        faults = []
        for name, entries in self._entry_points.items():
            if name in self._own:
                faults += [f"{_place(entry)}: not used, zbench has '{name}' itself; {ADVICE}"
                           for entry in entries]  # fmt: skip
                continue
            try:
                self[name]
            except MethodError as fault:
                faults.append(str(fault))
        return [*self._unread, *faults]

    @cached_property
    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in self._read_entry_points():
            found.setdefault(entry.name, []).append(entry)
        return found

    def _read_entry_points(self) -> list[EntryPoint]:
        try:
            return list(entry_points(group=GROUP))
        except Exception as fault:  # one package's metadata, of which Python does not say whose
            logger.info("entry points are read package by package: %s", _cause(fault))
        entries: list[EntryPoint] = []
        for package in distributions():
            try:
                entries += package.entry_points.select(group=GROUP)
            except Exception as fault:  # of any kind: a file that pip did not write
                place = getattr(package, "_path", "a package")
                self._unread.append(
                    printable(
                        f"{place}: its entry points cannot be read ({_cause(fault)}); {ADVICE}"
                    )
                )
        return entries


def _load(entry: EntryPoint) -> Method:
    place, value = _place(entry), entry.value
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may hold JSON alone
            method = entry.load()
    except (Exception, SystemExit) as fault:  # a stranger's code: told, with its cause
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
    if (misfit := _misfit(method)) is not None:
        raise MethodError(f"{place}: {value}: {misfit}; {ADVICE}")
    return replace(
        method,
        apply=_guarded(place, method.apply),
        count_parameters=_guarded(place, method.count_parameters),
        workload=method.workload and _guarded(place, method.workload),
    )


def _misfit(method: Method) -> str | None:
    """Which field of a method is not what `Method` says; None where all are."""
    if not isinstance(method.options, type) or not issubclass(method.options, MethodOptions):
        return "its options are no class of harness.methods.MethodOptions"
    if not isinstance(method.title, str) or not method.title.strip():
        return "its title is no text"
    if not isinstance(method.recipe, Mapping):
        return "its recipe is no mapping"
    called = ("apply", "count_parameters", "statistics", "telemetry", "workload")
    needed = called[:2]
    for name in called:
        value = getattr(method, name)
        if not callable(value) and (name in needed or value is not None):
            return f"its {name} is no function"
    return None


def _guarded(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A package's function, whose errors name the package; heavy imports stand inside of it."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ZbenchError:
            raise
        except Exception as fault:  # a stranger's code, of any kind; the cause stays attached
            if is_out_of_memory(fault):
                raise
            raise MethodError(f"{place}: {_cause(fault)}; {ADVICE}") from fault

    return guarded


def _place(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "a package"
    return printable(f"{package}: entry point '{entry.name}' of {GROUP}")


def _cause(fault: BaseException) -> str:
    """What went wrong, with the exception's kind in words: `module not found: ...`."""
    if isinstance(fault, ModuleNotFoundError) and fault.name in RENAMED:
        return f"{fault.name}: import {RENAMED[fault.name]} instead"
    kind = type(fault).__name__.removesuffix("Error").removesuffix("Exception")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return f"{words}: {one_line(fault)}" if words else one_line(fault)
