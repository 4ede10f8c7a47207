"""`gather` of a grid: rows that are the same method under several settings, read as its tuning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from harness.errors import shortened
from harness.grid.choices import MethodChoice
from harness.grid.remarks import no_method
from harness.grid.table_columns import Name

Gathered = dict[Name, list[Name]]
"""Labels of the rows by the name of what they are together."""


def gather_faults(
    gather: Mapping[str, Sequence[str]],
    blocks: Sequence[Mapping[str, MethodChoice]],
    *,
    labels: Collection[str],
) -> Iterator[str]:
    """Yields one line per fault of `gather`.

    Args:
        blocks: the methods of each block by label, those that have no fault.
        labels: of the methods in the blocks, those with faults of their own too.
    """
    choices = {label: choice for block in blocks for label, choice in block.items()}
    seen: dict[str, str] = {}
    for name, rows in gather.items():
        place = f"gather.{shortened(name)}"
        if name in choices:
            yield f"{place}: is the label of a method; give the rows another name together"
        if len(rows) < 2:
            yield f"{place}: needs two rows at least"
        for label in rows:
            if label not in labels:
                yield f"{place}: {no_method(label, labels)}"
            elif (other := seen.setdefault(label, name)) != name or rows.count(label) > 1:
                where = f"in gather.{other} too" if other != name else "twice"
                yield f"{place}: '{shortened(label)}' stands {where}; keep one"
        known = [label for label in rows if label in choices]
        kinds = {_kind(choices[label]) for label in known}
        if len(kinds) > 1:
            yield (
                f"{place}: gathers different methods ({', '.join(sorted(kinds))}); the rows of one "
                "method alone are its tuning"
            )
        elif any(choices[label].train is None for label in known):
            yield f"{place}: gathers rows that train nothing; leave them out"
        elif not any(block.keys() >= {*known} for block in blocks):
            yield f"{place}: its rows stand in different blocks; put them into one"


def _kind(choice: MethodChoice) -> str:
    """A method's name, with PEFT's type."""
    return f"{choice.method} {getattr(choice.options, 'peft_type', '')}".strip()
