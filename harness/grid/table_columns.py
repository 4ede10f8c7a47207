"""The columns of a grid's tables: a benchmark's scores, those of some of its items, averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, field_validator

from harness.errors import shortened
from harness.evaluation.benchmark import Benchmark
from harness.grid.column_sets import SetName, WhereEntry, columns_of, where_text
from harness.spec import Fault, Faults, Spec

Name = Annotated[str, Field(min_length=1, max_length=200)]
Title = Annotated[str, Field(min_length=1, max_length=80)]


def _as_list(raw: Any) -> Any:
    return [raw] if isinstance(raw, str) else raw


def _some(entries: Sequence[Any]) -> Sequence[Any]:
    if not entries:
        raise Fault("is empty; add at least one")
    return entries


def unique(names: Sequence[str]) -> Sequence[str]:
    faults = Faults()
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.add(f"'{shortened(name)}' stands {names.count(name)} times; keep one")
    faults.check()
    return names


NON_EMPTY = AfterValidator(_some)  # after the entries' own faults
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(_as_list, json_schema_input_type=Name | tuple[Name, ...]),
    AfterValidator(unique),
]


class BenchmarkColumn(Spec):
    """A column of a table: the scores of a benchmark by one metric."""

    name: Annotated[Names, NON_EMPTY]
    """A task of the grid; or several that differ in their protocol, such as a benchmark and its
    generated form: the table then stands once for each protocol."""
    metric: Name | None = None
    """lm-eval's metric, with its filter where it has one, such as `exact_match,strict-match`; the
    benchmark's primary one where absent."""
    title: Title | None = None
    """Its head; the benchmark's where absent."""
    where: WhereEntry = ()
    """Which of the benchmark's items count, by columns of their records, such as
    `{subject: natural science}` (of several values an item has one); all where absent."""


class ColumnSet(Spec):
    """The columns of a published table, made of one benchmark's items."""

    name: Annotated[Names, NON_EMPTY]
    """A task of the grid; or several that differ in their protocol."""
    columns: SetName
    """Which columns: `scienceqa` are NAT, SOC, LAN, TXT, IMG, NO, G1-6, G7-12 and Avg."""
    metric: Name | None = None
    """lm-eval's metric; the benchmark's primary one where absent."""

    def entries(self) -> list[BenchmarkColumn]:
        """Its columns in order."""
        return [
            BenchmarkColumn(name=self.name, metric=self.metric, title=title, where=where)
            for title, where in columns_of(self.columns).items()
        ]


Weights = list[Name] | dict[Name, Annotated[float, Field(gt=0)]]


class AverageColumn(Spec):
    """A column of a table: a weighted mean of benchmarks, all of which are shares."""

    average: dict[Name, Annotated[float, Field(gt=0)]]
    """Columns of the table that stand before it, by title, or tasks of the grid, each with its
    weight (they need not sum to 1); a list gives all the same one."""
    title: Title = "Average"

    @field_validator("average", mode="before", json_schema_input_type=Weights)
    @classmethod
    def _with_weights(cls, raw: Any) -> Any:
        if isinstance(raw, list | tuple):
            if not all(isinstance(name, str) for name in raw):
                raise Fault("must be a list of names, or a mapping of names to weights")
            unique(raw)
            raw = dict.fromkeys(raw, 1.0)
        if isinstance(raw, Mapping) and not raw:
            raise Fault("is empty; add at least one")
        return raw


def _read_column(entry: Any) -> BenchmarkColumn | AverageColumn | ColumnSet:
    if isinstance(entry, BenchmarkColumn | AverageColumn):
        return entry
    record = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(record, Mapping) or not {"name", "average"} & record.keys():
        raise Fault("must be a benchmark's name, or a mapping with `name` or with `average`")
    faults = Faults()
    kind: type[Spec] = AverageColumn if "average" in record else BenchmarkColumn
    found = faults.validate(ColumnSet if "columns" in record else kind, record)
    faults.check()
    assert isinstance(found, BenchmarkColumn | AverageColumn | ColumnSet)
    return found


def each_column(
    entries: Sequence[BenchmarkColumn | AverageColumn | ColumnSet],
) -> tuple[BenchmarkColumn | AverageColumn, ...]:
    """The columns, those of sets one by one."""
    return tuple(
        chain.from_iterable(
            one.entries() if isinstance(one, ColumnSet) else [one] for one in entries
        )
    )


ColumnSpec = Annotated[
    BenchmarkColumn | AverageColumn,
    PlainValidator(
        _read_column, json_schema_input_type=Name | BenchmarkColumn | AverageColumn | ColumnSet
    ),
]
"""A column; a set of them until the table has taken it apart."""


def default_title(name: str, benchmark: Benchmark | None) -> str:
    """The head of a benchmark's column where the grid gives none."""
    return name if benchmark is None else benchmark.column or benchmark.title


def metric_title(title: str, metric: str) -> str:
    """The head of the column of one metric of a benchmark: its filter, or else the metric."""
    return f"{title} ({metric.rpartition(',')[2]})"


def title_of(column: BenchmarkColumn | AverageColumn, tasks: Mapping[str, Benchmark | None]) -> str:
    """The head of a column."""
    if column.title is not None:
        return column.title
    assert isinstance(column, BenchmarkColumn)
    title = default_title(column.name[0], tasks.get(column.name[0]))
    title = title if column.metric is None else metric_title(title, column.metric)
    return f"{title} ({where_text(column.where)})" if column.where else title
