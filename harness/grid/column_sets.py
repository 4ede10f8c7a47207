"""Columns of some of a benchmark's items: those whose records hold given values.

They overlap where the grid says so (a question may have both a text and a picture), and so are no
tasks of their own: they are made of the item records of one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from harness.errors import shortened
from harness.spec import Fault, Faults

Value = bool | int | str
Where = tuple[tuple[str, tuple[Value, ...]], ...]
"""Columns of the item records, each with the values of which an item has one; without any, all
items."""

Values = Value | list[Value]

SetName = Literal["scienceqa"]

COLUMN_SETS: Mapping[str, Mapping[str, Mapping[str, Values]]] = {
    "scienceqa": {
        "NAT": {"subject": "natural science"},
        "SOC": {"subject": "social science"},
        "LAN": {"subject": "language science"},
        "TXT": {"has_text": True},
        "IMG": {"has_image": True},
        "NO": {"has_text": False, "has_image": False},
        "G1-6": {"grade": [f"grade{number}" for number in range(1, 7)]},
        "G7-12": {"grade": [f"grade{number}" for number in range(7, 13)]},
        "Avg": {},
    }
}
"""Heads and items of the columns that a published table has; `scienceqa`: those of the official
`tools/evaluate_acc.py` (github.com/lupantech/ScienceQA)."""


def read_where(raw: Any) -> Where:
    """The items of a column, as a grid states them: values, or lists of values, by column."""
    if isinstance(raw, tuple):
        return raw
    if not isinstance(raw, Mapping):
        raise Fault("must be a mapping of the item records' columns to values")
    if not raw:
        raise Fault("is empty; add a column of the item records and a value, or leave it out")
    faults = Faults()
    found = []
    for name, values in raw.items():
        if not isinstance(name, str) or not name:
            faults.add(f"'{shortened(str(name))}' is no name of a column")
            continue
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not listed or not all(isinstance(one, bool | int | str) for one in listed):
            faults.add("must be a text, a whole number, true or false, or a list of such", name)
        found.append((name, listed))
    faults.check()
    return tuple(found)


WhereEntry = Annotated[Where, PlainValidator(read_where, json_schema_input_type=dict[str, Values])]


def columns_of(name: SetName) -> dict[str, Where]:
    """Heads and items of the columns of a set, in order."""
    return {title: read_where(where) if where else () for title, where in COLUMN_SETS[name].items()}


def where_text(where: Where) -> str:
    """Which items are meant, in words; empty where all are."""
    return ", ".join(f"{name} {_listed(values)}" for name, values in where)


def _listed(values: tuple[Value, ...]) -> str:
    shown = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
