"""What a grid states of the spread over re-trainings before it has measured it: `seed_sd`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from harness.errors import did_you_mean, shortened
from harness.evaluation.benchmark import Benchmark
from harness.grid.questions import TableSpec
from harness.grid.table_columns import default_title, title_of
from harness.spec import LARGEST_NUMBER, Fault, Faults, Spec

MOST_POINTS = 50
"""The largest standard deviation of a share, in points: half of its values 0%, half 100%."""


class SeedSd(Spec):
    """The standard deviation of one model's score over trainings that differ in their seed alone.

    A paired difference of two trained models has twice its square as variance.
    """

    points: Annotated[float, Field(gt=0)]
    """In points, or in the unit of a column that is no share."""
    source: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    """Where the number is from."""


class SeedSds(Spec):
    """`seed_sd` of a grid: one value for every share, or values by column."""

    every: SeedSd | None = None
    """Of every column that is a share."""
    by_column: dict[str, SeedSd] = {}
    """By title, or by benchmark."""

    def of(self, *names: str, is_share: bool) -> SeedSd | None:
        """What is stated of a column, asked by its title and, of no average, by its benchmark."""
        own = next((self.by_column[name] for name in names if name in self.by_column), None)
        return own or (self.every if is_share else None)


def _read(raw: Any) -> SeedSds:
    if isinstance(raw, SeedSds):
        return raw
    faults = Faults()
    if not isinstance(raw, Mapping) or {"points", "source"} & raw.keys():
        every = _read_one(raw, faults)
        if every is not None and every.points > MOST_POINTS:
            faults.add(f"no share varies by more than {MOST_POINTS} points (got {every.points:g})")
        faults.check()
        return SeedSds(every=every)
    if not raw:
        raise Fault("is empty; add a number of points")
    found: dict[str, SeedSd] = {}
    for name, entry in raw.items():
        one = _read_one(entry, faults, str(name))
        found |= {} if one is None else {str(name): one}
    faults.check()
    return SeedSds(by_column=found)


def _read_one(raw: Any, faults: Faults, *place: str) -> SeedSd | None:
    """One value; None where it has faults, which are added."""
    if isinstance(raw, Mapping):
        return faults.validate(SeedSd, raw, *place)
    try:
        value = 0.0 if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = 0.0
    if not 0 < value <= LARGEST_NUMBER:
        shown = str(raw).lower() if isinstance(raw, bool) else shortened(str(raw))
        faults.add(f"must be a number of points above 0, such as 1.2 (got {shown})", *place)
        return None
    return SeedSd(points=value)


Points = Annotated[float, Field(gt=0)] | SeedSd
SeedSdsEntry = Annotated[
    SeedSds, PlainValidator(_read, json_schema_input_type=Points | dict[str, Points])
]


def seed_sd_faults(
    stated: SeedSds | None, tables: Sequence[TableSpec], tasks: Mapping[str, Benchmark | None]
) -> Iterator[str]:
    """Yields a line per column of `seed_sd` that no table has and no benchmark is named as."""
    titles = [title_of(column, tasks) for table in tables for column in table.columns]
    known = dict.fromkeys([*titles, *tasks, *map(default_title, tasks, tasks.values())])
    for name in () if stated is None else stated.by_column:
        if name not in known:
            yield f"seed_sd: no column '{shortened(name)}' is measured{did_you_mean(name, known)}"
