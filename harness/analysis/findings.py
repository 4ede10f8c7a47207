"""All that the numbers of a grid say, found at once; `harness.report` only prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from harness.analysis.aggregates import (
    ImprovementLine,
    MeanLine,
    improvement_lines,
    mean_lines,
)
from harness.analysis.claims import ClaimFinding, claim_findings
from harness.analysis.columns import Group, is_aggregate
from harness.analysis.comparisons import (
    Comparison,
    compare,
    compare_with_published,
    corrected,
    headlines,
    untested_claims,
)
from harness.analysis.curves import EfficiencyCurves, LossCurves, efficiency_curves, loss_curves
from harness.analysis.forgetting import Forgetting, forgettings
from harness.analysis.frames import DATA, ReportInput, without_noise
from harness.analysis.gates import GateCurves, ShareLine, gate_curves, share_lines
from harness.analysis.item_tables import ItemTable, item_tables
from harness.analysis.measurements import Measurements, finite
from harness.analysis.mixtures import Mixture, table_mixture
from harness.analysis.noise_study import NoiseStudy, study_noise
from harness.analysis.picture_effects import EffectLine, effect_lines
from harness.analysis.picture_sheet import PictureSheet, picture_sheets
from harness.analysis.published import Anchor, Published, load_published
from harness.analysis.published_runs import PublishedRuns, published_runs
from harness.analysis.responses import FlagLine, OrderLine, flag_lines, order_lines
from harness.analysis.score_tables import Lines, score_lines
from harness.analysis.tradeoffs import Tradeoff, tradeoffs
from harness.analysis.variants import BASE, variant_of

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmark import Benchmark


COSTS = (
    *("examples", "steps", "seconds", "evaluation_seconds"),
    *("tokens_per_second", "peak_memory_bytes", "peak_learning_rate"),
)
"""Columns of the cells frame."""
PREDICTED = ["expected_training_seconds", "expected_scoring_seconds"]


@dataclass(frozen=True, eq=False)
class Findings:
    """What a grid's results say."""

    data: ReportInput
    measured: Measurements
    """The estimate of every variant in every column; its groups are those of the fields below."""
    published: Published
    lines: Lines
    """Rows of each table of scores."""
    comparisons: Mapping[Group, list[Comparison]]
    noise: NoiseStudy
    """Noise floor, sources of variance, clustered errors, draws."""
    items: tuple[ItemTable, ...]
    """The items of the pairs that the grid asks to be compared."""
    mixtures: Mapping[Group, Mixture]
    """The groups whose tables mix cells of several stacks."""
    headlines: tuple[Comparison, ...]
    """What the page says first: what the grid claims, and asks to be compared."""
    claims: tuple[ClaimFinding, ...]
    """What becomes of each claim that is tested."""
    untested: tuple[str, ...]
    """The grid's claims of which nothing is compared, in words."""
    flags: Mapping[Group, list[FlagLine]]
    """Response flags."""
    orders: tuple[OrderLine, ...]
    """What the order of the options does."""
    efficiency: Mapping[tuple[Group, str, str | None], list[EfficiencyCurves]]
    """By group, model and data set, where there are any."""
    losses: tuple[LossCurves, ...]
    gates: tuple[GateCurves, ...]
    shares: tuple[ShareLine, ...]
    """Shares of attention that prompts take."""
    picture_effects: tuple[EffectLine, ...]
    """What another picture changes."""
    sheets: tuple[PictureSheet, ...]
    """Pictures with questions and answers."""
    costs: tuple[dict[str, Any], ...]
    """By variant, see `cost_lines`."""
    anchors: tuple[tuple[Anchor, float], ...]
    """Published scores of base models, each with ours (0..1)."""
    scores: pd.DataFrame
    """Rows of the scores frame that are a whole benchmark's."""
    forgotten: tuple[Forgetting, ...]
    """What training changed of the likelihood of general text."""
    tradeoffs: tuple[Tradeoff, ...]
    """What the scores cost."""
    published_runs: PublishedRuns | None
    """Published runs beside the measured ones, where the grid names some."""
    means: tuple[MeanLine, ...]
    """Interquartile means over the benchmarks."""
    improvements: tuple[ImprovementLine, ...]
    """Probabilities of improvement over the benchmarks."""
    not_numbers: tuple[str, ...]
    """Scores that are no numbers, in words."""
    num_seeds: tuple[int, int] | None
    """See `seeds_behind`."""
    at_chance: list[tuple[str, Group, list[str]]]
    """See `columns_at_chance`."""


def find(data: ReportInput, benchmarks: Mapping[str, Benchmark] | None = None) -> Findings:
    """All findings of a grid's results; its benchmarks are by default its own and those that
    ship."""
    from harness.evaluation.benchmarks import BENCHMARKS

    known = benchmarks or {**BENCHMARKS, **data.benchmarks}
    study = without_noise(data)
    measured, published = Measurements(study, known), load_published()
    groups, models = measured.groups, measured.models
    compared = _compared(measured, published)
    tested = corrected(compared)
    comparisons: dict[Group, list[Comparison]] = {
        group: [entry for entry in tested if entry.group is group] for group in groups
    }
    trained = [(model, each) for model in models for each in measured.data_sets(model)]
    efficiency = {
        (group, *each): efficiency_curves(measured, group, *each)
        for group, each in product(groups, trained)
    }
    losses = [loss_curves(measured, published, *each) for each in trained]
    scores = study.scores[is_aggregate(study.scores)]
    lines, forgotten = score_lines(measured, published), tuple(forgettings(measured))
    return Findings(
        data=data,
        measured=measured,
        published=published,
        lines=lines,
        comparisons=comparisons,
        noise=study_noise(data, measured, comparisons, known),
        items=tuple(item_tables(measured, comparisons)),
        mixtures={
            group: mixture
            for group in (*groups, *(view for _, view in lines))
            if (mixture := table_mixture(measured, group)) is not None
        },
        headlines=headlines(tested),
        claims=claim_findings(measured, published, tested),
        untested=tuple(untested_claims(measured, compared)),
        flags={group: flag_lines(measured, group) for group in groups},
        orders=tuple(order_lines(measured)),
        efficiency={key: curves for key, curves in efficiency.items() if curves},
        losses=tuple(found for found in losses if found is not None),
        gates=tuple(gate_curves(measured)),
        shares=tuple(share_lines(measured)),
        picture_effects=tuple(effect_lines(measured)),
        sheets=tuple(picture_sheets(measured)),
        costs=tuple(cost_lines(data.cells)),
        anchors=tuple(published.anchor_scores(scores)),
        scores=scores,
        forgotten=forgotten,
        tradeoffs=tuple(tradeoffs(measured, comparisons, forgotten)),
        published_runs=published_runs(data, measured, forgotten),
        means=tuple(mean_lines(measured)),
        improvements=tuple(improvement_lines(measured)),
        not_numbers=tuple(
            f"{record['label']}: {record['benchmark']} {record['metric']}"
            for record in scores[~finite(scores["value"])].to_dict("records")
        ),
        num_seeds=seeds_behind(measured),
        at_chance=columns_at_chance(measured),
    )


def _compared(measured: Measurements, published: Published) -> list[Comparison]:
    """All comparisons, among ourselves and with published values; their p is not corrected yet."""
    found: list[Comparison] = []
    for group, model in product(measured.groups, measured.models):
        found += compare(measured, group, model)
        found += compare_with_published(measured, published, group, model)
    return found


def seeds_behind(measured: Measurements) -> tuple[int, int] | None:
    """The fewest and the most trained seeds behind a score of the tables; None without scores."""
    counts = {
        len(measured.seed_scores(variant, group, column))
        for group in measured.groups
        for column in group.settings
        for variant in measured.tabled
        if variant.method_name != BASE
    } - {0}
    return (min(counts), max(counts)) if counts else None


def columns_at_chance(measured: Measurements) -> list[tuple[str, Group, list[str]]]:
    """Model, group and the columns in which no row is two standard errors above chance."""
    found = [
        (model, group, [c for c in group.columns if _is_at_chance(measured, group, model, c)])
        for group in measured.groups
        for model in measured.models
    ]
    return [entry for entry in found if entry[2]]


def _is_at_chance(measured: Measurements, group: Group, model: str, column: str) -> bool:
    chance = None if group.is_average(column) else measured.chance(group, column)
    found = [measured.estimate(v, group, column) for v in measured.table_variants(model)]
    estimates = [estimate for estimate in found if estimate is not None]
    return bool(estimates) and all(
        chance is not None
        and not group.is_lower_better(column)
        and estimate.stderr is not None
        and estimate.value - chance <= 2 * estimate.stderr
        for estimate in estimates
    )


def cost_lines(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Costs of every variant of the cells frame, in its order; NaN where nothing is known.

    `variant`; `num_done` and `num_cells`; `trainable_parameters`; the means of COSTS over the
    finished cells; `predicted_seconds` of training and scoring per finished cell that has a
    prediction, and `measured_ratio`, measured over predicted seconds of those cells.
    """
    lines = []
    keys = ["model", "method", "method_name", "method_title", "fraction"]
    keys += [DATA] * (DATA in cells)
    told = ("status", "trainable_parameters", "seconds", "evaluation_seconds")
    columns = list(dict.fromkeys([*keys, *told, *COSTS, *PREDICTED]))
    for _, part in cells.reindex(columns=columns).groupby(keys, sort=False, dropna=False):
        done = part[part["status"] == "done"]
        known = done.dropna(subset=[*PREDICTED, "evaluation_seconds"])
        predicted = float(known[PREDICTED].sum().sum()) or float("nan")
        measured = float(known[["seconds", "evaluation_seconds"]].sum().sum())
        lines.append(
            {
                "variant": variant_of(part.iloc[0].to_dict()),
                "num_done": len(done),
                "num_cells": len(part),
                "trainable_parameters": float(part["trainable_parameters"].astype(float).mean()),
                **{name: float(done[name].astype(float).mean()) for name in COSTS},
                "predicted_seconds": predicted / max(1, len(known)),
                "measured_ratio": measured / predicted,
            }
        )
    return lines
