"""What a grid says of its methods by label: `remarks`, and methods that are `left_out`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from harness.errors import did_you_mean, shortened
from harness.grid.table_columns import Name

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
    remarks: Mapping[str, str], left_out: Mapping[str, str], *, labels: Collection[str]
) -> Iterator[str]:
    """Yields one line per fault of `remarks` and `left_out`.

    Args:
        labels: of the methods in the grid's blocks.
    """
    for label in remarks:
        if label not in labels:
            yield f"remarks.{shortened(label)}: {no_method(label, labels)}"
    for label in left_out:
        if label in labels:
            yield f"left_out.{shortened(label)}: is a method of the grid; remove one of the two"


def no_method(label: str, labels: Collection[str]) -> str:
    """What is said of a label that no block has."""
    known = did_you_mean(label, labels)
    return f"no method '{shortened(label)}' in the blocks of this grid{known}"
