"""`gather` of a grid: rows that are the same method under several settings, read as its tuning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from harness.errors import did_you_mean, shortened
from harness.grid.choices import MethodChoice
from harness.grid.questions import Name

Gathered = dict[Name, Annotated[list[Name], Field(min_length=2)]]
"""Labels of the rows by the name of what they are together."""


def gather_faults(
    gather: Mapping[str, Sequence[str]],
    choices: Mapping[str, MethodChoice],
    *,
    methods: Collection[str],
) -> Iterator[str]:
    """Yields one line per fault of `gather`.

    Args:
        choices: the grid's methods by label.
        methods: all names that the file has, those with faults of their own too.
    """
    seen: dict[str, str] = {}
    for name, labels in gather.items():
        place = f"gather.{shortened(name)}"
        if name in choices:
            yield f"{place}: is the label of a method; give the rows another name together"
        for label in labels:
            if label not in methods:
                known = did_you_mean(label, choices)
                yield f"{place}: no such method '{shortened(label)}'{known}"
            elif (other := seen.setdefault(label, name)) != name or labels.count(label) > 1:
                where = f"in gather.{other} too" if other != name else "twice"
                yield f"{place}: '{shortened(label)}' stands {where}; keep one"
        kinds = {_kind(choices[label]) for label in labels if label in choices}
        if len(kinds) > 1:
            yield (
                f"{place}: gathers different methods ({', '.join(sorted(kinds))}); the rows of one "
                "method alone are its tuning"
            )
        elif any(label in choices and choices[label].train is None for label in labels):
            yield f"{place}: gathers rows that train nothing; leave them out"


def _kind(choice: MethodChoice) -> str:
    """A method's name, with PEFT's type."""
    return f"{choice.method} {getattr(choice.options, 'peft_type', '')}".strip()
