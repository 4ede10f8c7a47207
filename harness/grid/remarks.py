"""What a grid says of its methods by label: `remarks`, and methods that are `left_out`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from harness.errors import did_you_mean, shortened
from harness.grid.questions import Name

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Remarks = dict[Name, Text]
"""By a method's label."""


def remark_lines(remarks: Mapping[str, str], left_out: Mapping[str, str]) -> list[str]:
    """What `plan` and the report tell of methods, a line each."""
    return [
        *(f"{label}: {text}" for label, text in remarks.items()),
        *(f"{label} is left out: {text}" for label, text in left_out.items()),
    ]


def remark_faults(
    remarks: Mapping[str, str], left_out: Mapping[str, str], *, methods: Collection[str]
) -> Iterator[str]:
    """Yields one line per fault of `remarks` and `left_out`.

    Args:
        methods: labels of the grid's methods.
    """
    for label in remarks:
        if label not in methods:
            yield f"remarks.{shortened(label)}: no such method{did_you_mean(label, methods)}"
    for label in left_out:
        if label in methods:
            yield f"left_out.{shortened(label)}: is a method of the grid; remove one of the two"
