"""The published numbers, as printed, with what each was measured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.stats import Estimate, binomial_stderr
from harness.analysis.variants import BASE

if TYPE_CHECKING:
    import pandas as pd


PAPER_BENCHMARKS = {
    "ARC-e": "arc_easy",
    "ARC-c": "arc_challenge",
    "MMLU": "mmlu",
    "HellaSwag": "hellaswag",
    "TruthfulQA": "truthfulqa",
}
"""What the names of the benchmarks hold that the published columns are made of."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table."""

    model: str
    method: str
    params: str | None
    values: Mapping[str, float]
    """Percent, by column."""


@dataclass(frozen=True)
class PublishedColumn:
    """How a published column was measured."""

    protocol: str
    metric: str | None
    shots: int | None
    num_items: int
    temperature: float | None = None
    """Sampling temperature of generated responses."""


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

    source: str
    columns: Mapping[str, PublishedColumn]
    averages: Mapping[str, Mapping[str, float]]
    """Weights of the columns in each published average."""
    titles: Mapping[str, str]
    """Of the tables, by name."""
    tables: Mapping[str, tuple[PublishedRow, ...]]
    loss_source: str
    losses: tuple[PublishedLoss, ...]
    anchor_source: str
    anchor_protocol: str
    anchor_shots: int
    anchors: tuple[Anchor, ...]

    def row(self, model: str, method: str) -> PublishedRow | None:
        """Row of a model and method; the one of Table 2 where both tables have it."""
        return self.table_row("table2", model, method) or self.table_row("table1", model, method)

    def table_row(self, table: str, model: str, method: str) -> PublishedRow | None:
        """Row of a model and method in one table."""
        rows = (row for row in self.tables[table] if (row.model, row.method) == (model, method))
        return next(rows, None)

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
            PAPER_BENCHMARKS[column] in ours.benchmark
            and ours.protocol == theirs.protocol
            and theirs.metric in (None, ours.metric)
            and theirs.shots in (None, ours.shots)
            and theirs.temperature == ours.temperature
        )

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
    paper, losses, anchors = raw["paper"], raw["losses"], raw["anchors"]
    return Published(
        source=paper["source"],
        columns={name: PublishedColumn(**entry) for name, entry in paper["columns"].items()},
        averages=paper["averages"],
        titles=paper["titles"],
        tables={
            name: tuple(_row(**entry) for entry in rows) for name, rows in paper["tables"].items()
        },
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


def _row(model: str, method: str, params: str | None, **values: float) -> PublishedRow:
    return PublishedRow(model, method, params, values)
