"""Which tables a report has, and what each of their columns holds: as the grid says, or by default.

What stands in none of the grid's tables has tables of its own: no benchmark and no method is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.grid.column_sets import Where
from harness.grid.questions import TableSpec
from harness.grid.table_columns import (
    AverageColumn,
    BenchmarkColumn,
    ColumnSpec,
    default_title,
    metric_title,
    title_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmark import Benchmark

OTHERS = "benchmarks"
"""Name of the table of what stands in no table of the grid, and mark of its columns' groups."""
METHODS_LEFT = "methods"
"""Name of the table of the methods that stand in no table of the grid."""
MOST_NAMED = 6
"""Methods or benchmarks that a title names."""


@dataclass(frozen=True)
class Column:
    """What one column holds: a metric of a benchmark, or an average of other columns."""

    title: str
    names: tuple[str, ...] = ()
    """Benchmarks that fill it, of different protocols; none of an average."""
    metric: str | None = None
    """None: each benchmark's primary one, or what was measured in its stead."""
    where: Where = ()
    """Which items of the benchmarks count; all where empty."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of an average: weights of measured columns by title; they sum to 1."""
    meaning: str = ""
    """Of an average: what it is the mean of, in words."""
    is_shown: bool = True
    """Whether a table has it; else it is but a part of an average."""


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores."""

    name: str
    """Name of its files."""
    title: str
    columns: tuple[str, ...]
    """Titles in order; empty: all that its group has."""
    rows: tuple[str, ...] = ()
    """Labels or registry names of methods, in order; empty: all."""
    bold: tuple[str, ...] = ()
    has_params: bool = True
    published: str | None = None
    notes: tuple[str, ...] = ()
    is_rest: bool = False
    """Whether it holds the benchmarks that stand in no table of the grid."""


@dataclass(frozen=True)
class Layout:
    """The tables, and the columns of all of them by title."""

    tables: tuple[ScoreTable, ...]
    columns: Mapping[str, Column]
    rest: Mapping[str, Column]
    """Columns of the benchmarks that stand in no table of the grid."""
    is_stated: bool
    """Whether the grid says which tables there are: a column that one benchmark fills then stands
    in the tables of every protocol."""


def layout_of(
    tables: Sequence[TableSpec],
    benchmarks: Mapping[str, Benchmark],
    scores: pd.DataFrame,
    methods: Sequence[tuple[str, str]],
) -> Layout:
    """The tables of a grid.

    Args:
        tables: the grid's; without any, one table has all benchmarks.
        benchmarks: what is known of benchmarks, by name.
        scores: rows of the scores frame that are a whole benchmark's.
        methods: label and registry name of every method but the untrained base model.
    """
    measured: dict[str, list[str]] = {}
    for name, metric in dict.fromkeys(zip(scores["benchmark"], scores["metric"], strict=True)):
        measured.setdefault(str(name), []).append(str(metric))
    if not tables:
        columns = _default_columns(measured, benchmarks, ())
        return Layout((ScoreTable("table1", "All benchmarks", ()),), columns, {}, is_stated=False)
    columns = {}
    entries = {title_of(one, benchmarks): one for table in tables for one in table.columns}
    stated = [
        _stated_table(table, number, columns, benchmarks, entries)
        for number, table in enumerate(tables, 1)
    ]
    shown = {name for column in columns.values() if column.is_shown for name in column.names}
    left = {name: metrics for name, metrics in measured.items() if name not in shown}
    taken = {title: column for title, column in columns.items() if column.is_shown}
    rest = _default_columns(left, benchmarks, taken)
    if rest:
        stated.append(ScoreTable(OTHERS, "Benchmarks in no other table", (), is_rest=True))
    lost = _methods_left(tables, methods)
    if lost:
        every = tuple(title for title, column in columns.items() if column.is_shown)
        title = f"Methods in no other table: {listed(lost)}"
        stated.append(ScoreTable(METHODS_LEFT, title, every, rows=lost))
    return Layout(tuple(stated), columns, rest, is_stated=True)


def _methods_left(
    tables: Sequence[TableSpec], methods: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    if any(not table.rows for table in tables):
        return ()
    shown = {row for table in tables for row in table.rows}
    return tuple(dict.fromkeys(label for label, name in methods if not shown & {label, name}))


def _stated_table(
    table: TableSpec,
    number: int,
    columns: dict[str, Column],
    benchmarks: Mapping[str, Benchmark],
    entries: Mapping[str, ColumnSpec],
) -> ScoreTable:
    """A table of the grid; its columns are added to those of all tables, whose entries by title are
    given."""
    titles: list[str] = []
    for entry in table.columns:
        title = title_of(entry, benchmarks)
        if isinstance(entry, BenchmarkColumn):
            columns[title] = Column(title, entry.name, entry.metric, entry.where)
        else:
            parts = {
                part: part if part in titles else _part(part, columns, benchmarks, entries)
                for part in entry.average
            }
            columns[title] = _average(title, entry, columns, parts)
        titles.append(title)
    return ScoreTable(
        name=f"table{number}",
        title=table.title or listed(titles),
        columns=tuple(titles),
        rows=table.rows,
        bold=table.bold,
        has_params=table.params,
        published=table.published,
        notes=table.notes,
    )


def _part(
    name: str,
    columns: dict[str, Column],
    benchmarks: Mapping[str, Benchmark],
    entries: Mapping[str, ColumnSpec],
) -> str:
    """Title of the column of a task that an average names; one of its own is not shown."""
    for title, entry in entries.items():
        if isinstance(entry, BenchmarkColumn) and (entry.name, entry.metric, entry.where) == (
            (name,),
            None,
            (),
        ):
            columns.setdefault(title, Column(title, (name,)))
            return title
    for title, column in columns.items():
        if column.names == (name,) and not column.is_shown:
            return title
    title = default_title(name, benchmarks.get(name))
    while title in columns or title in entries:  # another column's
        title += f" ({name})"
    columns[title] = Column(title, (name,), is_shown=False)
    return title


def _average(
    title: str, entry: AverageColumn, columns: Mapping[str, Column], parts: Mapping[str, str]
) -> Column:
    total = sum(entry.average.values())
    weights: dict[str, float] = {}
    named: dict[str, float] = {}
    for name, weight in entry.average.items():
        part = parts[name]
        named[part] = weight
        for own, share in (columns[part].weights or {part: 1.0}).items():
            weights[own] = weights.get(own, 0.0) + share * weight / total
    *first, last = named
    if len(set(named.values())) == 1:
        meaning = f"mean of {', '.join(first)} and {last}" if first else last
    else:
        meaning = " + ".join(f"{weight / total:.3g} × {part}" for part, weight in named.items())
    return Column(title, weights=weights, meaning=meaning)


def _default_columns(
    measured: Mapping[str, Sequence[str]],
    benchmarks: Mapping[str, Benchmark],
    taken: Collection[str],
) -> dict[str, Column]:
    """A column for each benchmark, and for each further filter of its primary metric.

    Benchmarks of one head and of different protocols fill one column.
    """
    found: dict[str, Column] = {}
    protocols: dict[str, set[str]] = {}
    for name, metrics in measured.items():
        known = benchmarks.get(name)
        protocol = known.protocol.name if known else ""
        for column in _of_benchmark(name, known, metrics):
            title = column.title
            shared = found.get(title)
            if shared and protocol and protocol not in protocols[title] and not column.metric:
                found[title] = replace(shared, names=(*shared.names, name))
                protocols[title].add(protocol)
                continue
            if shared or title in taken:
                title = f"{title} ({name})"
            found[title] = replace(column, title=title)
            protocols[title] = {protocol} if protocol else set()
    return found


def _of_benchmark(name: str, known: Benchmark | None, metrics: Sequence[str]) -> Iterator[Column]:
    title = default_title(name, known)
    primary = known.primary_metric if known and known.primary_metric in metrics else metrics[0]
    stem, _, filtered = primary.partition(",")
    others = [one for one in metrics if one != primary and one.partition(",")[0] == stem]
    if not filtered or not others:
        yield Column(title, (name,))
        return
    for metric in (primary, *others):
        yield Column(metric_title(title, metric), (name,), metric)


def listed(names: Sequence[str] | Mapping[str, object]) -> str:
    """Names, of many the first ones and the number of the others."""
    found = list(dict.fromkeys(names))
    if len(found) <= MOST_NAMED + 1:
        return ", ".join(found)
    return f"{', '.join(found[:MOST_NAMED])} and {len(found) - MOST_NAMED} more"
