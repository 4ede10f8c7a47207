"""Jinja templates that put a row into text: in a sandbox, and the same on every day.

What transformers gives a chat template is here too: `raise_exception`, `strftime_now`, `tojson`,
loop controls, and `{% generation %}`, which marks what the assistant says. The date is pinned.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.data.marks import CLOSE, OPEN
from harness.errors import DataError, one_line

if TYPE_CHECKING:
    import jinja2

DATE = datetime.datetime(2024, 7, 26, tzinfo=datetime.UTC)
"""The day of every template that writes a date: training and scores would else differ from day to
day."""
DATE_STRING = "26 Jul 2024"
_DATED = re.compile(r"\b(date_string|strftime_now)\b")


class TemplateRefusal(Exception):
    """A template cannot be filled with a row; the message is its own."""


def writes_date(source: str) -> bool:
    """Whether a template asks for the date."""
    return _DATED.search(source) is not None


def dated(source: str) -> str:
    """A template that writes the pinned date where it asks for that of the day."""
    asked = r"""\bstrftime_now\(\s*(['"])(.*?)\1\s*\)"""
    return re.sub(asked, lambda found: f"{found[1]}{_strftime_now(found[2])}{found[1]}", source)


@functools.lru_cache(maxsize=32)
def names_in(source: str) -> frozenset[str]:
    """What a template is filled with, except what it asks for itself whether it is defined.

    Raises:
        DataError: it is no template.
    """
    import jinja2.meta

    environment = compiled(source).environment
    found = jinja2.meta.find_undeclared_variables(environment.parse(source))
    guarded = re.findall(r"(\w+)\s+is\s+(?:not\s+)?(?:un)?defined", source)
    return frozenset(found - set(environment.globals) - set(guarded) - {"date_string"})


def fill(source: str, values: Mapping[str, Any]) -> str:
    """A template filled with values; what it marks stands between OPEN and CLOSE.

    Raises:
        DataError: it is no template.
        TemplateRefusal: it fails, or raises an exception of its own.
    """
    template = compiled(source)
    try:
        return template.render(**values, date_string=DATE_STRING)
    except Exception as fault:  # what a template does with values can fail in any way
        raise TemplateRefusal(one_line(fault) or type(fault).__name__) from fault


@functools.lru_cache(maxsize=32)
def compiled(source: str) -> jinja2.Template:
    """The template of a source.

    Raises:
        DataError: it is no template; the line says where.
    """
    import jinja2

    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as fault:
        raise DataError(f"line {fault.lineno} of the template: {one_line(fault)}") from fault


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %} ... {% endgeneration %}`."""

        tags = {"generation"}

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Any) -> str:
            return f"{OPEN}{caller()}{CLOSE}"

    class Namespace(jinja2.utils.Namespace):
        """A namespace without attributes that begin with an underscore."""

        def __init__(*args: Any, **values: Any) -> None:
            self, *rest = args
            given = dict(*rest, **values)
            for name in given:
                Namespace._check(name)
            jinja2.utils.Namespace.__init__(self, given)

        def __setitem__(self, name: str, value: Any) -> None:
            Namespace._check(name)
            super().__setitem__(name, value)

        @staticmethod
        def _check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": Namespace,
        "dict": _dict,
    }
    return environment


def _dict(*values: Any, **named: Any) -> dict[Any, Any]:
    return dict(*values, **named)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)


def _strftime_now(form: str) -> str:
    return DATE.strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
