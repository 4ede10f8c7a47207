"""What a table's entry says: the estimate of one trained variant in one column, and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.analysis.answers import ITEM_KEY, LOGLIKELIHOOD
from harness.analysis.bits import BITS_PER_BYTE, with_bits
from harness.analysis.columns import Group, Setting, is_aggregate, is_missing, records_of
from harness.analysis.grouping import by_metric, find_groups
from harness.analysis.item_orders import ItemOrders
from harness.analysis.layout import layout_of
from harness.analysis.paired import Difference, Paired, alone
from harness.analysis.some_items import chance_of_some, choose, scores_of_some
from harness.analysis.stats import Components, Estimate, Sample
from harness.analysis.variants import BASE, Variant, label_of, name_of, representatives, variant_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from harness.analysis.frames import ReportInput
    from harness.evaluation.benchmark import Benchmark

Seed = int | None
"""None is the untrained base model's."""

Parts = tuple[tuple[Setting, float], ...]
"""What a column is made of: settings with their weights."""


class Measurements:
    """The scores of a grid, asked by variant, group and column."""

    def __init__(self, data: ReportInput, benchmarks: Mapping[str, Benchmark]) -> None:
        self.data = data
        self.benchmarks = benchmarks
        whole = data.scores[is_aggregate(data.scores)]
        methods = [(v.method, v.method_name) for v in self.cells if v.method_name != BASE]
        self.layout = layout_of(data.tables, benchmarks, whole, methods)
        groups, rows = find_groups(whole, benchmarks, self.layout)
        self.groups, self.rows = scores_of_some(groups, rows, data.items)
        self._whole = whole
        self._scores = {setting: _by_cell(frame) for setting, frame in self.rows.items()}
        self._estimates: dict[tuple[Variant, Parts], Estimate | None] = {}
        self._items: dict[tuple[str, Setting], pd.Series | None] = {}
        self._orders = ItemOrders()

    @cached_property
    def cells(self) -> dict[Variant, dict[Seed, str]]:
        """The planned cells of each variant by seed, in the order of the frame."""
        found: dict[Variant, dict[Seed, str]] = {}
        for row in records_of(self.data.cells):
            seed = None if is_missing(row["seed"]) else int(row["seed"])
            found.setdefault(variant_of(row), {})[seed] = row["cell_id"]
        return {
            variant: dict(sorted(seeds.items(), key=lambda entry: (entry[0] is None, entry[0])))
            for variant, seeds in found.items()
        }

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the frame."""
        return tuple(dict.fromkeys(variant.model for variant in self.cells))

    def data_sets(self, model: str) -> tuple[str | None, ...]:
        """Names of the data sets that a model is trained on, in the order of the frame."""
        trained = (v for v in self.cells if v.model == model and v.fraction is not None)
        return tuple(dict.fromkeys(variant.data for variant in trained))

    def on_data(self, model: str, data: str | None) -> list[Variant]:
        """A model's variants that are trained on a data set, and the untrained ones."""
        return [
            v for v in self.cells if v.model == model and (v.fraction is None or v.data == data)
        ]

    def fractions(self, model: str, data: str | None) -> tuple[float, ...]:
        """Planned fractions of a model and data set, ascending."""
        found = {v.fraction for v in self.on_data(model, data) if v.fraction is not None}
        return tuple(sorted(found))

    def table_variants(self, model: str) -> list[Variant]:
        """A model's variants for the tables: base, and the largest planned fraction of each data
        set."""
        return [variant for variant in self.tabled if variant.model == model]

    @cached_property
    def tabled(self) -> tuple[Variant, ...]:
        """The variants of the tables, model by model."""
        found = []
        for model in self.models:
            sets = self.data_sets(model)
            largest = {data: self.fractions(model, data)[-1] for data in sets}
            mine = [v for v in self.cells if v.model == model]
            shown = [v for v in mine if v.fraction in (None, largest.get(v.data))]
            found += sorted(shown, key=lambda v: 1 + sets.index(v.data) if v.fraction else 0)
        return tuple(found)

    def row_name(self, variant: Variant) -> str:
        """Name in a table, where a method's other settings stand below its own row."""
        return name_of(variant) if variant in self.standing else f"… {label_of(variant)}"

    @cached_property
    def standing(self) -> tuple[Variant, ...]:
        """The variants of the tables that stand for their methods."""
        return tuple(representatives(self.tabled))

    def are_same(self, left: Variant, right: Variant) -> bool:
        """Whether two rows are the same trainings: a tuning may choose the published recipe."""
        return self.cells.get(left) == self.cells.get(right)

    @cached_property
    def tabled_once(self) -> tuple[Variant, ...]:
        """The variants of the tables, without a second row of the same trainings."""
        first = {tuple(self.cells[v].values()): v for v in reversed(self.tabled)}
        return tuple(v for v in self.tabled if first[tuple(self.cells[v].values())] is v)

    def by_metric(self, group: Group, column: str, metric: str) -> Group:
        """A group in which the column is measured by another metric of the same evaluations; the
        group itself where that was not measured, or is the column's own."""
        setting = group.settings[column]
        found = by_metric(self._whole, self.benchmarks, setting, metric)
        if setting.metric == metric or found is None:
            return group
        _, rows = scores_of_some((), dict([found]), self.data.items)
        self._scores[found[0]] = _by_cell(rows[found[0]])
        return replace(group, settings={**group.settings, column: found[0]})

    def seed_scores(self, variant: Variant, group: Group, column: str) -> dict[Seed, float]:
        """Score (0..1) of each seed that has all parts of the column."""
        weights = group.weights_of(column)
        return {
            seed: sum(
                weight * self._scores[group.settings[part]][cell_id]["value"]
                for part, weight in weights.items()
            )
            for seed, cell_id in self.seeds_with(variant, group, column).items()
        }

    def estimate(self, variant: Variant, group: Group, column: str) -> Estimate | None:
        """Mean over items and seeds; None where a part of the column is missing."""
        known = group.parts(column)
        if known is None:
            return None
        parts = tuple(zip(known, group.weights_of(column).values(), strict=True))
        if (variant, parts) not in self._estimates:
            samples = self._samples(variant, group, column)
            self._estimates[variant, parts] = alone(samples, variant) if samples else None
        return self._estimates[variant, parts]

    def pooled(self, variant: Variant, group: Group, column: str) -> Estimate | None:
        """The same, of several seeds with what the grid's other methods tell of the spread over
        them."""
        samples = self._samples(variant, group, column)
        found = self._paired.score(variant, group, column, samples) if samples else None
        return self.estimate(variant, group, column) if found is None else found

    def _samples(self, variant: Variant, group: Group, column: str) -> list[Sample]:
        cell_ids = list(self.seeds_with(variant, group, column).values())
        weights = group.weights_of(column).values()
        parts = zip(group.parts(column) or (), weights, strict=False)
        return [self._sample(cell_ids, *part) for part in parts if cell_ids]

    def difference(
        self, left: Variant, right: Variant, group: Group, column: str
    ) -> Difference | None:
        """Left minus right, paired by item and seed; None where items are missing.

        The base model has no seed: it stands against each seed of the other. What the grid's other
        comparisons, or its `seed_sd`, tell of the spread over seeds is in it: see `paired`.
        """
        return self._paired.difference(left, right, group, column)

    def components(
        self, left: Variant, right: Variant, group: Group, column: str
    ) -> Components | None:
        """Where the variance of left minus right comes from; None where nothing is known of seeds,
        or all items and seeds show the same difference.

        Of a score that is no mean over its items all that is known is the variance over seeds.
        """
        return self._paired.components(left, right, group, column)

    def most_scattered(
        self, model: str, data: str | None, group: Group, column: str
    ) -> tuple[Variant, float] | None:
        """The trained variant whose score scatters most over the seeds, and the p that one does so
        by chance; see `moderation.most_scattered`."""
        return self._paired.most_scattered(model, data, group, column)

    @cached_property
    def _paired(self) -> Paired:
        return Paired(self)

    def is_no_mean(self, cell_ids: Sequence[str], setting: Setting) -> bool:
        """Whether a score is no mean over items, such as a perplexity or F1: the records have no
        score of an item."""
        if setting.unit is not None:
            return True
        frames = [self.data.items(cell_id, setting.benchmark) for cell_id in cell_ids]
        return all(frame is not None and setting.metric not in frame for frame in frames)

    def score_rows(self, setting: Setting, cell_ids: Sequence[str]) -> list[dict[str, Any]]:
        """`value`, `stderr` and `n` of cells that have a score."""
        return [self._scores[setting][cell_id] for cell_id in cell_ids]

    def seeds_with(self, variant: Variant, group: Group, column: str) -> dict[Seed, str]:
        """Cells that have a score in every part of the column."""
        parts = group.parts(column)
        found = [{}] if parts is None else [self._scores[setting] for setting in parts]
        return {
            seed: cell_id
            for seed, cell_id in self.cells.get(variant, {}).items()
            if all(cell_id in scores for scores in found)
        }

    def _sample(self, cell_ids: list[str], setting: Setting, weight: float) -> Sample:
        import numpy as np

        scores = [self._scores[setting][cell_id] for cell_id in cell_ids]
        values = np.array([score["value"] for score in scores], dtype=float)
        table = self.table(cell_ids, setting)
        if table is not None:
            return Sample(values, table[1], None, table[1].shape[1], weight)
        stderrs = np.array([score["stderr"] for score in scores], dtype=float)
        known = stderrs if np.isfinite(stderrs).all() else None
        number = scores[0]["n"]
        return Sample(values, None, known, 0 if is_missing(number) else int(number), weight)

    def table(self, cell_ids: list[str], setting: Setting) -> tuple[pd.Index, np.ndarray] | None:
        """(items,) names and (seeds, items) scores; None unless all answered the same items."""
        return _stacked([self._item_scores(cell_id, setting) for cell_id in cell_ids])

    def _item_scores(self, cell_id: str, setting: Setting) -> pd.Series | None:
        """Score on each item of a cell; None where its records do not give its score."""
        key = (cell_id, setting)
        if key not in self._items:
            series = self._read_items(cell_id, setting)
            score = self._scores[setting][cell_id]
            # A cell keeps one set of records per benchmark; they may be those of another limit.
            if series is not None and not (
                len(series) == score["n"]
                and series.notna().all()
                and abs(float(series.mean()) - score["value"]) < 1e-6
            ):
                series = None
            self._items[key] = series
        return self._items[key]

    def _read_items(self, cell_id: str, setting: Setting) -> pd.Series | None:
        frame = self.data.items(cell_id, setting.benchmark)
        frame = with_bits(frame) if setting.metric == BITS_PER_BYTE else frame
        if frame is None or setting.metric not in frame:
            return None
        if any(key not in frame for key in ITEM_KEY):
            return None
        frame = choose(frame, setting.where)
        index, order = self._orders.of(frame[list(ITEM_KEY)])
        if index is None:
            return None
        return frame[setting.metric].iloc[order].astype(float).set_axis(index)

    def paired_cells(
        self, left: Variant, right: Variant, setting: Setting
    ) -> list[tuple[str, str]]:
        """Cells of two variants that both have a score, paired by seed; base stands against each
        seed.
        """
        known = self._scores[setting]
        ours, theirs = (
            {seed: cell for seed, cell in self.cells.get(variant, {}).items() if cell in known}
            for variant in (left, right)
        )
        if None in ours:
            return [(ours[None], cell) for cell in theirs.values()]
        found = [(cell, theirs.get(None, theirs.get(seed))) for seed, cell in ours.items()]
        return [(cell, other) for cell, other in found if other is not None]

    def item_table(
        self, cell_ids: Sequence[str], setting: Setting
    ) -> tuple[pd.Index, np.ndarray] | None:
        """Names of the items, and scores (cells, items); None unless all answered the same ones.

        Of a perplexity, which is no mean over items, their log-likelihoods: see
        `is_told_by_likelihood`.
        """
        if self.is_told_by_likelihood(setting, cell_ids):
            own = replace(setting, metric=LOGLIKELIHOOD)
            return _stacked([self._read_items(cell_id, own) for cell_id in cell_ids])
        return self.table(list(cell_ids), setting)

    def is_told_by_likelihood(self, setting: Setting, cell_ids: Sequence[str]) -> bool:
        """Whether items are told apart by their log-likelihoods, the higher the better."""
        is_text = setting.metric == BITS_PER_BYTE
        return is_text or (setting.unit is not None and self.table(list(cell_ids), setting) is None)

    def distinct(self, setting: Setting, name: str) -> dict[str, list[str]]:
        """Values of a column of the scores frame that a setting's rows hold, by model."""
        parts = self.rows[setting].groupby("model", sort=False)[name]
        return {str(model): sorted(set(map(str, values))) for model, values in parts}

    def _chance_of(self, setting: Setting) -> float | None:
        known = self.benchmarks.get(setting.benchmark)  # known of the primary metric alone
        if known is None or known.chance is None or known.primary_metric != setting.metric:
            return None
        cells = [str(cell) for cell in self.rows[setting]["cell_id"][:1] if setting.where]
        frames = [self.data.items(cell, setting.benchmark) for cell in cells]
        return chance_of_some(frames[0], setting.where) if frames else known.chance

    def chance(self, group: Group, column: str) -> float | None:
        """Expected score of random answers (0..1); None where it is not defined."""
        total = 0.0
        settings = group.parts(column)
        if settings is None:
            return None
        for setting, weight in zip(settings, group.weights_of(column).values(), strict=True):
            chance = self._chance_of(setting)
            if chance is None:
                return None
            total += weight * chance
        return total


def _by_cell(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """`value`, `stderr` and `n` of each cell whose score is a number."""
    known = rows[finite(rows["value"])].set_index("cell_id")
    return known[["value", "stderr", "n"]].to_dict("index")


def _stacked(rows: Sequence[pd.Series | None]) -> tuple[pd.Index, np.ndarray] | None:
    """(items,) names and (cells, items) values; None unless all are there, of the same items."""
    import numpy as np

    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or any(not row.index.equals(known[0].index) for row in known):
        return None
    return known[0].index, np.stack([row.to_numpy() for row in known])


def finite(values: pd.Series) -> pd.Series:
    """Which values are numbers: not None, NaN or infinite."""
    import numpy as np

    return values.astype("float64").map(np.isfinite).astype(bool)
