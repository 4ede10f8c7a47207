"""Conditions that select rows: Jinja expressions over their columns, in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.errors import DataError, one_line
from harness.spec import Fault

_BRACES = re.compile(r"\s*\{\{(.*)\}\}\s*", re.DOTALL)
LONGEST = 2000
"""Characters of a condition."""


class Condition:
    """A condition such as `output|length < 500`, with or without double braces around it.

    Raises:
        Fault: it is no Jinja expression, or names no column.
    """

    def __init__(self, text: str) -> None:
        import jinja2
        from jinja2 import meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        found = _BRACES.fullmatch(text)
        self.text = (found[1] if found else text).strip()
        if len(text) > LONGEST:
            raise Fault(f"must have at most {LONGEST} characters")
        environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
        try:
            self._holds = environment.compile_expression(self.text, undefined_to_none=False)
            tree = environment.parse("{{ (" + self.text + ") }}")
        except jinja2.TemplateError as fault:
            raise Fault(
                f"is no condition ({one_line(fault)}); write one such as output|length < 500"
            ) from fault
        self.columns = frozenset(meta.find_undeclared_variables(tree) - set(environment.globals))
        """The columns that it reads."""
        if not self.columns:
            raise Fault("names no column; write a condition such as output|length < 500")

    def holds(self, record: Mapping[str, Any], where: str) -> bool:
        """Whether a row is selected; `where` names it.

        Raises:
            DataError: it cannot be said of this row.
        """
        import jinja2

        try:
            found = self._holds(**{name: record[name] for name in self.columns if name in record})
            if isinstance(found, jinja2.Undefined):
                found._fail_with_undefined_error()
        except Exception as fault:  # a condition may fail in any way
            raise DataError(
                f"{where}: the condition `{self.text}` fails ({one_line(fault)}); correct `where`"
            ) from fault
        if not isinstance(found, bool):
            raise DataError(
                f"{where}: the condition `{self.text}` gives {one_line(repr(found))[:60]}, neither "
                "true nor false; compare it with something"
            )
        return found
