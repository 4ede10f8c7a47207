"""All that the numbers of a grid say, found at once; `harness.report` only prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from harness.analysis.cautions import columns_at_chance, seeds_behind
from harness.analysis.columns import Group, is_aggregate
from harness.analysis.comparisons import Comparison, compare, compare_with_published, headlines
from harness.analysis.costs import cost_lines
from harness.analysis.curves import EfficiencyCurves, LossCurves, efficiency_curves, loss_curves
from harness.analysis.frames import ReportInput
from harness.analysis.gates import GateCurves, ShareLine, gate_curves, share_lines
from harness.analysis.measurements import Measurements
from harness.analysis.paper_tables import TABLE_1, TABLE_2, Line, PaperTable, table_lines
from harness.analysis.published import Anchor, Published, load_published
from harness.analysis.responses import FlagLine, OrderLine, flag_lines, order_lines

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmarks import Benchmark


@dataclass(frozen=True, eq=False)
class Findings:
    """What a grid's results say."""

    data: ReportInput
    measured: Measurements
    """The estimate of every variant in every column; its groups are those of the fields below."""
    published: Published
    lines: Mapping[tuple[PaperTable, Group], list[Line]]
    """Rows of the paper's tables."""
    comparisons: Mapping[Group, list[Comparison]]
    headlines: tuple[Comparison, ...]
    """What the page says first: one comparison per claim of the paper."""
    flags: Mapping[Group, list[FlagLine]]
    """Response flags."""
    orders: tuple[OrderLine, ...]
    """What the order of the options does."""
    efficiency: Mapping[tuple[Group, str], list[EfficiencyCurves]]
    """By group and model, where there are any."""
    losses: tuple[LossCurves, ...]
    gates: tuple[GateCurves, ...]
    shares: tuple[ShareLine, ...]
    """Shares of attention that prompts take."""
    costs: tuple[dict[str, Any], ...]
    """By variant, see `cost_lines`."""
    anchors: tuple[tuple[Anchor, float], ...]
    """Published scores of base models, each with ours (0..1)."""
    scores: pd.DataFrame
    """Rows of the scores frame that are a whole benchmark's."""
    num_seeds: tuple[int, int] | None
    """See `seeds_behind`."""
    at_chance: list[tuple[str, Group, list[str]]]
    """See `columns_at_chance`."""


def find(data: ReportInput, benchmarks: Mapping[str, Benchmark] | None = None) -> Findings:
    """All findings of a grid's results; its benchmarks are by default those that ship."""
    from harness.evaluation.benchmarks import BENCHMARKS

    measured, published = Measurements(data, benchmarks or BENCHMARKS), load_published()
    groups, models = measured.groups, measured.models
    comparisons: dict[Group, list[Comparison]] = {group: [] for group in groups}
    for group, model in product(groups, models):
        comparisons[group] += compare(measured, group, model)
        comparisons[group] += compare_with_published(measured, published, group, model)
    efficiency = {key: efficiency_curves(measured, *key) for key in product(groups, models)}
    losses = [loss_curves(measured, published, model) for model in models]
    scores = data.scores[is_aggregate(data.scores)]
    return Findings(
        data=data,
        measured=measured,
        published=published,
        lines={
            (paper, group): table_lines(measured, published, group, paper)
            for paper, group in product((TABLE_1, TABLE_2), groups)
        },
        comparisons=comparisons,
        headlines=headlines([entry for entries in comparisons.values() for entry in entries]),
        flags={group: flag_lines(measured, group) for group in groups},
        orders=tuple(order_lines(measured)),
        efficiency={key: curves for key, curves in efficiency.items() if curves},
        losses=tuple(found for found in losses if found is not None),
        gates=tuple(gate_curves(measured)),
        shares=tuple(share_lines(measured)),
        costs=tuple(cost_lines(data.cells)),
        anchors=tuple(published.anchor_scores(scores)),
        scores=scores,
        num_seeds=seeds_behind(measured),
        at_chance=columns_at_chance(measured),
    )
