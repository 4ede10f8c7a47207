"""What a grid asks of its results: its tables, comparisons and claims. No part of any cell's id."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from harness.errors import did_you_mean, shortened
from harness.evaluation.benchmark import Benchmark
from harness.grid.table_columns import (
    NON_EMPTY,
    AverageColumn,
    BenchmarkColumn,
    ColumnSpec,
    Name,
    Names,
    default_title,
    each_column,
    title_of,
)
from harness.methods import METHODS
from harness.spec import Fault, Spec

ALL = "all"
Measured = tuple[str, str | None]
"""A benchmark and its metric; None is the primary one."""


class TableSpec(Spec):
    """A table of scores."""

    title: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    columns: Annotated[tuple[ColumnSpec, ...], NON_EMPTY, AfterValidator(each_column)]
    """Names of the grid's tasks, or mappings: see BenchmarkColumn, AverageColumn and ColumnSet."""
    rows: Names = ()
    """Methods in order, by label or by registry name (which means all of its labels; the grid need
    not have it); all of the grid's where absent. The base model stands above them."""
    bold: Names = ()
    """The best of these methods is bold, per model and column; `all` for every row."""
    params: bool = True
    """Whether a column tells the number of trained parameters."""
    published: Literal["table1", "table2", "scienceqa", "scienceqa-ablation"] | None = None
    """The published table whose rows stand beside ours, where they were measured alike."""
    notes: tuple[Annotated[str, Field(max_length=1000)], ...] = ()
    """Sentences for its caption."""

    @field_validator("rows", mode="before")
    @classmethod
    def _all_rows(cls, raw: Any) -> Any:
        return () if raw == ALL else raw

    @field_validator("params", mode="before")
    @classmethod
    def _is_truth(cls, raw: Any) -> Any:
        if not isinstance(raw, bool):
            raise Fault("must be true or false")
        return raw


class ClaimSpec(Spec):
    """A claim about two methods, stated before the results."""

    better: Name
    """A method, by label or registry name."""
    than: Name
    on: Name | None = None
    """The column that it is tested on: a title of the tables, or a benchmark. Where absent it is
    the average of the most benchmarks, or without an average each benchmark."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """The largest difference that counts as none: in points, or in the metric's own unit."""

    @model_validator(mode="before")
    @classmethod
    def _on(cls, raw: Any) -> Any:
        """In YAML 1.1 a bare `on` is a truth value."""
        if not isinstance(raw, Mapping):
            return raw
        return {"on" if key is True else key: value for key, value in raw.items()}

    @model_validator(mode="after")
    def _of_two(self) -> ClaimSpec:
        if self.better == self.than:
            raise Fault(f"'{shortened(self.better)}' is compared with itself; name two methods")
        return self


def question_faults(
    tables: Sequence[TableSpec],
    compare: str | None,
    claims: Sequence[ClaimSpec],
    *,
    methods: Collection[str],
    tasks: Mapping[str, Benchmark | None],
) -> Iterator[str]:
    """Yields one line per fault, each with its place in the file.

    Args:
        tables: the grid's.
        compare: the grid's.
        claims: the grid's.
        methods: labels and registry names of the methods of its blocks.
        tasks: the benchmarks of its blocks by name; None where nothing is known of one.
    """
    meanings: dict[str, tuple[object, str]] = {}
    for index, table in enumerate(tables):
        place = f"tables[{index}]"
        yield from _column_faults(table, place, tasks, meanings)
        for key, names in (("rows", table.rows), ("bold", table.bold)):
            for at, name in enumerate(names):
                if name not in METHODS and not (key == "bold" and name == ALL):
                    yield from _method_faults(f"{place}.{key}[{at}]", name, methods)
    if compare is not None and compare != ALL:
        yield from _method_faults("compare", compare, methods and [*methods, ALL])
    yield from _claim_faults(claims, methods, tasks, [t for t in meanings if t])


def _method_faults(place: str, name: str, methods: Collection[str]) -> Iterator[str]:
    if methods and name not in methods:  # without blocks there is none, which is told once
        hint = did_you_mean(name, dict.fromkeys(methods))
        yield f"{place}: no method '{shortened(name)}' in the blocks of this grid{hint}"


def _claim_faults(
    claims: Sequence[ClaimSpec],
    methods: Collection[str],
    tasks: Mapping[str, Benchmark | None],
    titles: Sequence[str],
) -> Iterator[str]:
    columns = dict.fromkeys([*titles, *tasks, *map(default_title, tasks, tasks.values())])
    seen: dict[tuple[frozenset[str], str | None], int] = {}
    for index, claim in enumerate(claims):
        place = f"claims[{index}]"
        yield from _method_faults(f"{place}.better", claim.better, methods)
        yield from _method_faults(f"{place}.than", claim.than, methods)
        if claim.on is not None and claim.on not in columns:
            hint = did_you_mean(claim.on, columns)
            yield f"{place}.on: no column '{shortened(claim.on)}' is measured{hint}"
        first = seen.setdefault((frozenset((claim.better, claim.than)), claim.on), index)
        if first != index:
            yield f"{place}: tests the same as claims[{first}]; keep one"


def _column_faults(
    table: TableSpec,
    place: str,
    tasks: Mapping[str, Benchmark | None],
    meanings: dict[str, tuple[object, str]],
) -> Iterator[str]:
    """Yields faults of a table's columns; `meanings` are those of all tables by title."""
    before: dict[str, tuple[Measured, ...]] = {}
    for index, column in enumerate(table.columns):
        where, title = f"{place}.columns[{index}]", title_of(column, tasks)
        if isinstance(column, AverageColumn):
            yield from _average_faults(column, where, before, tasks)
            own = tuple(chain.from_iterable(_parts(n, before) for n in column.average))
        else:
            yield from _benchmark_faults(column, where, tasks)
            own = tuple((name, column.metric) for name in column.name)
        if title in before:
            yield f"{where}: a second column is called '{shortened(title)}'; give it a `title`"
        elif (known := meanings.setdefault(title, ((column, own), place)))[0] != (column, own):
            yield (
                f"{where}: '{shortened(title)}' is another column in {known[1]}; give one of them "
                "another `title`"
            )
        before[title] = own


def _benchmark_faults(
    column: BenchmarkColumn, where: str, tasks: Mapping[str, Benchmark | None]
) -> Iterator[str]:
    protocols: dict[str, str] = {}
    for name in column.name:
        if name not in tasks:
            yield f"{where}: '{shortened(name)}' is no task of this grid{did_you_mean(name, tasks)}"
        elif (known := tasks[name]) is not None:
            if column.metric is not None and column.metric not in known.metrics:
                hint = did_you_mean(column.metric, known.metrics)
                yield f"{where}.metric: {name} has no metric '{shortened(column.metric)}'{hint}"
            other = protocols.setdefault(known.protocol.name, name)
            if other != name:
                yield (
                    f"{where}: {other} and {name} are measured with one protocol "
                    f"({known.protocol.name}); give each a column of its own"
                )


def _average_faults(
    column: AverageColumn,
    where: str,
    before: Mapping[str, tuple[Measured, ...]],
    tasks: Mapping[str, Benchmark | None],
) -> Iterator[str]:
    lower: dict[bool, str] = {}
    for part in column.average:
        if part not in before and part not in tasks:
            known = dict.fromkeys([*before, *tasks])
            yield (
                f"{where}.average: '{shortened(part)}' is no column before it and no task of this "
                f"grid{did_you_mean(part, known)}"
            )
        for name, metric in _parts(part, before):
            benchmark = tasks.get(name)
            if benchmark is None:
                continue
            unit, higher = _kind(benchmark, metric)
            if unit is not None:
                yield (
                    f"{where}.average: {name} is no share (it counts {unit}) and in no average; "
                    "give it a column of its own"
                )
            else:
                lower.setdefault(not higher, name)
    if len(lower) > 1:
        yield (
            f"{where}.average: of {lower[True]} the lower score is better, of {lower[False]} the "
            "higher one; such scores are in no average"
        )


def _parts(name: str, before: Mapping[str, tuple[Measured, ...]]) -> tuple[Measured, ...]:
    """What a part of an average is made of: a column before it, or a benchmark."""
    return before.get(name, ((name, None),))


def _kind(benchmark: Benchmark, metric: str | None) -> tuple[str | None, bool]:
    """The unit of a metric, None of shares, and whether the higher score is the better one."""
    name = benchmark.primary_metric if metric is None else metric
    kind = benchmark.kinds.get(name)
    if kind is not None:
        return kind.unit, kind.higher_is_better
    return None, benchmark.higher_is_better or name != benchmark.primary_metric
