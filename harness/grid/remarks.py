"""What a grid says of its methods by label: remarks, what is left out, and rows that are gathered.

`gather` names rows that are the same method under several settings, so that they are read as one
method's tuning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from harness.errors import did_you_mean, shortened
from harness.grid.choices import MethodChoice
from harness.grid.questions import Name

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Remarks = dict[Name, Text]
"""By a method's label."""
Gathered = dict[Name, Annotated[list[Name], Field(min_length=2)]]
"""Labels of the rows by the name of what they are together."""


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


def settings_of(choice: MethodChoice) -> dict[str, Any]:
    """A method's options and training settings by name, those of `peft` without that word."""
    options = choice.options.model_dump(mode="json")
    own = options.pop("peft", {})
    train = {} if choice.train is None else choice.train.model_dump(mode="json")
    return {**options, **own, **train}


def differing_settings(choices: Sequence[MethodChoice]) -> list[dict[str, Any]]:
    """Of methods, the settings in which they differ; `default` where one states none."""
    all_of = [settings_of(choice) for choice in choices]
    names = dict.fromkeys(name for one in all_of for name in one)
    varied = [name for name in names if len({repr(one.get(name)) for one in all_of}) > 1]
    return [{name: one.get(name, "default") for name in varied} for one in all_of]
