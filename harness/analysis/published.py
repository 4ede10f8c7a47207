"""The published numbers, as printed, with what each was measured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import Group, Setting
from harness.analysis.stats import Estimate, binomial_stderr
from harness.analysis.variants import BASE, Variant
from harness.grid.column_sets import Where, columns_of

if TYPE_CHECKING:
    import pandas as pd


STUDIES = (("table2", "table1"), ("scienceqa",), ("scienceqa-ablation",))
"""Tables whose rows may stand against each other; of a row of several the first one counts."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table."""

    model: str | None
    """None, as the method, of one that is no model of ours: a reference."""
    method: str | None
    params: str | None
    values: Mapping[str, float]
    """Percent, by column."""
    picture_layers: int | None = None
    """Of a model that takes pictures: layers that carry a prompt."""
    name: str | None = None
    """As it is printed; None for the method's."""

    def is_of(self, variant: Variant) -> bool:
        """Whether the row is of a variant's model, method and use of pictures."""
        ours = variant.model, variant.method_name, variant.picture_layers
        return (self.model, self.method, self.picture_layers) == ours


@dataclass(frozen=True)
class PublishedColumn:
    """How a published column was measured."""

    protocol: str
    metric: str | None
    shots: int | None
    num_items: int
    benchmark: str
    """What the names of the benchmarks hold that are measured alike."""
    temperature: float | None = None
    """Sampling temperature of generated responses."""
    where: Where = ()
    """Which of the items count; all where empty."""


@dataclass(frozen=True)
class PublishedLoss:
    """A published training curve."""

    model: str
    method: str
    values: tuple[float, ...]
    """Mean loss of each epoch, in nats per token."""
    note: str | None


@dataclass(frozen=True)
class Anchor:
    """A published score of an untrained base model."""

    model: str
    benchmark: str
    metric: str
    value: float
    """Percent."""


@dataclass(frozen=True)
class Published:
    """All published numbers; values in percent."""

    sources: Mapping[str, str]
    """Of the tables, by name."""
    columns: Mapping[str, PublishedColumn]
    averages: Mapping[str, Mapping[str, float]]
    """Weights of the columns in each published average."""
    titles: Mapping[str, str]
    """Of the tables, by name."""
    tables: Mapping[str, tuple[PublishedRow, ...]]
    splits: Mapping[str, str]
    """By table: the split that was measured, where it is not the test split."""
    notes: Mapping[str, str]
    """By table: what must be known of its numbers."""
    loss_source: str
    losses: tuple[PublishedLoss, ...]
    anchor_source: str
    anchor_protocol: str
    anchor_shots: int
    anchors: tuple[Anchor, ...]

    def row(self, variant: Variant, column: str) -> PublishedRow | None:
        """A variant's row with a value of the test split in a column."""
        tables = chain.from_iterable(STUDIES)
        rows = (self.table_row(one, variant) for one in tables if one not in self.splits)
        return next((row for row in rows if row is not None and column in row.values), None)

    def table_row(self, table: str, variant: Variant) -> PublishedRow | None:
        """A variant's row in one table."""
        return next((row for row in self.tables[table] if row.is_of(variant)), None)

    def references(self, table: str) -> tuple[PublishedRow, ...]:
        """Rows of a table that are of no model of ours."""
        return tuple(row for row in self.tables[table] if row.model is None)

    def rows_of_two(
        self, left: Variant, right: Variant, column: str
    ) -> tuple[PublishedRow, PublishedRow, str] | None:
        """Two variants' rows of one study with values in a column, and their split (empty: test);
        None where no study has both."""
        for tables in STUDIES:
            first, second = (
                next((row for one in tables if (row := self.table_row(one, side))), None)
                for side in (left, right)
            )
            if first and second and column in first.values and column in second.values:
                return first, second, self.splits.get(tables[0], "")
        return None

    def matches(self, column: str, group: Group, num_items: int | None) -> bool:
        """Whether our column was measured as the published one was.

        An average matches where all of its parts do; its number of items is the sum over them.
        Without a score yet, the number of items is None.
        """
        parts = group.weights_of(column)
        if group.is_average(column) and parts != self.averages.get(column):
            return False
        if not parts.keys() <= self.columns.keys():
            return False
        same_items = num_items in (None, sum(self.columns[part].num_items for part in parts))
        return same_items and all(self._measured_alike(part, group) for part in parts)

    def _measured_alike(self, column: str, group: Group) -> bool:
        theirs, ours = self.columns[column], group.settings.get(column)
        if ours is None or ours.limit is not None or group.deviations.get(column):
            return False
        return (
            theirs.benchmark in ours.benchmark
            and _same_items(theirs.where, ours.where)
            and ours.protocol == theirs.protocol
            and theirs.metric in (None, ours.metric)
            and theirs.shots in (None, ours.shots)
            and (theirs.temperature or 0.0) == (ours.temperature or 0.0)  # 0 is greedy
        )

    def num_items(self, column: str, setting: Setting) -> int | None:
        """Items of a published column that are those of a setting, however they were measured."""
        theirs = self.columns.get(column)
        if theirs is None or setting.limit is not None or theirs.benchmark not in setting.benchmark:
            return None
        return theirs.num_items if _same_items(theirs.where, setting.where) else None

    def stderr(self, row: PublishedRow, column: str) -> float:
        """Binomial standard error (0..1) of a published value.

        It knows the items only: the published number of seeds is unknown, probably one.
        """
        variance = sum(
            (weight * binomial_stderr(row.values[part] / 100, self.columns[part].num_items)) ** 2
            for part, weight in self.averages.get(column, {column: 1.0}).items()
        )
        return float(variance**0.5)

    def difference(self, ours: Estimate, row: PublishedRow, column: str) -> Estimate:
        """Ours minus the published value, unpaired: the published items are not known."""
        theirs = self.stderr(row, column)
        stderr = None if ours.stderr is None else (ours.stderr**2 + theirs**2) ** 0.5
        df = ours.df
        if ours.stderr and stderr:
            # The published error is taken as known: Satterthwaite with one uncertain summand.
            df = ours.df * (stderr / ours.stderr) ** 4
        value = ours.value - row.values[column] / 100
        return replace(ours, value=value, stderr=stderr, df=df, few=None)

    def anchor_scores(self, scores: pd.DataFrame) -> list[tuple[Anchor, float]]:
        """Anchors with our score (0..1) of the same base model, measured in the same way.

        The rows of the scores frame are those of whole benchmarks.
        """
        whole = scores[(scores["method_name"] == BASE) & scores["limit"].isna()]
        names = ["model", "benchmark", "metric", "protocol", "shots"]
        setting = (self.anchor_protocol, self.anchor_shots)
        return [
            (anchor, float(value))
            for anchor in self.anchors
            for *ours, value in whole[[*names, "value"]].itertuples(index=False)
            if tuple(ours) == (anchor.model, anchor.benchmark, anchor.metric, *setting)
        ]


@cache
def load_published() -> Published:
    """Published numbers that ship with the package."""
    import yaml

    text = files("harness.analysis").joinpath("published.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    losses, anchors = raw["losses"], raw["anchors"]
    paper, scienceqa = raw["paper"], raw["scienceqa"]
    tables = {**paper["tables"], **scienceqa["tables"]}
    return Published(
        sources={name: one["source"] for one in (paper, scienceqa) for name in one["tables"]},
        columns={
            **{name: PublishedColumn(**entry) for name, entry in paper["columns"].items()},
            **_scienceqa_columns(scienceqa),
        },
        averages=paper["averages"],
        titles={**paper["titles"], **scienceqa["titles"]},
        tables={name: tuple(_row(**entry) for entry in rows) for name, rows in tables.items()},
        splits=scienceqa["splits"],
        notes={**dict.fromkeys(paper["tables"], paper["note"]), **scienceqa["notes"]},
        loss_source=losses["source"],
        losses=tuple(
            PublishedLoss(**(entry | {"values": tuple(entry["values"])}))
            for entry in losses["rows"]
        ),
        anchor_source=anchors["source"],
        anchor_protocol=anchors["protocol"],
        anchor_shots=anchors["shots"],
        anchors=tuple(Anchor(**entry) for entry in anchors["rows"]),
    )


def _scienceqa_columns(raw: Mapping[str, Any]) -> dict[str, PublishedColumn]:
    """The columns of ScienceQA's tables: the items of each are those of the set of columns."""
    return {
        name: PublishedColumn(
            raw["protocol"], None, None, raw["num_items"][name], raw["benchmark"], where=where
        )
        for name, where in columns_of("scienceqa").items()
    }


def _row(
    model: str | None = None,
    method: str | None = None,
    params: str | None = None,
    picture_layers: int | None = None,
    name: str | None = None,
    **values: float,
) -> PublishedRow:
    return PublishedRow(model, method, params, values, picture_layers, name)


def _same_items(one: Where, other: Where) -> bool:
    return {name: set(values) for name, values in one} == {n: set(v) for n, v in other}
