"""What becomes of each of a grid's claims: its verdict, the published one, and what could be seen.

A claim is judged once for each model, data set and protocol that it is measured in; `verdicts` has
the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.columns import Group, stated_sd
from harness.analysis.comparisons import Comparison
from harness.analysis.earlier_verdicts import EarlierVerdict
from harness.analysis.measurements import Measurements, Seed
from harness.analysis.power import LEVEL, Reach, reach_of, spread_of
from harness.analysis.published import Published
from harness.analysis.stats import Basis, Estimate
from harness.analysis.variants import Variant, name_of
from harness.analysis.verdicts import (
    Asked,
    AskedPublished,
    PublishedVerdict,
    Verdict,
    judge,
    judge_published,
    oriented,
)
from harness.errors import printable
from harness.grid.seed_sd import SeedSd

UNKNOWN_SEEDS = (
    "it speaks of these two trained models, not of the methods: nothing is known of how much "
    "another seed changes a score"
)


@dataclass(frozen=True)
class PublishedDifference:
    """Two published scores' difference (0..1)."""

    value: float
    stderr: float
    """The binomial one of two unpaired scores: it knows neither the answers nor the seeds."""
    split: str = ""
    """Split that was measured, where it is not the test split."""


@dataclass(frozen=True)
class PublishedClaim:
    """A claim's two published values, measured as ours were."""

    difference: float
    """Positive as claimed."""
    stderr: float
    verdict: PublishedVerdict
    split: str = ""
    """Split that was measured, where it is not the test split."""


@dataclass(frozen=True)
class ClaimFinding:
    """A claim in one model and column, with all that is said of it."""

    comparison: Comparison
    """As it was measured, the better-claimed method minus the other."""
    difference: Estimate | None
    """The same, positive as claimed."""
    verdict: Verdict
    seeds: tuple[int, ...]
    """Those that both sides have."""
    planned: tuple[int, ...]
    """Those that both sides were planned to have."""
    published: PublishedClaim | None = None
    reach: Reach | None = None
    """None where nothing is known of the spread."""

    @property
    def key(self) -> str:
        """What the claim is known by over reports."""
        entry = self.comparison
        place = f"{entry.group.protocol} {entry.group.rank}"
        return printable(" | ".join((entry.model, place, entry.column, entry.left, entry.right)))

    def as_reported(self, date: str) -> EarlierVerdict:
        """What a report of this date says of it."""
        value = None if self.difference is None else round(self.difference.value, 12)
        return EarlierVerdict(date, self.seeds, self.planned, self.verdict.kind, value, self.margin)

    @property
    def margin(self) -> float | None:
        """The claim's, in the unit of the scores."""
        return self.comparison.margin


@dataclass(frozen=True)
class _Side:
    comparison: Comparison
    left: Variant
    right: Variant


def claim_findings(
    measured: Measurements, published: Published, comparisons: Sequence[Comparison]
) -> tuple[ClaimFinding, ...]:
    """The findings of all claims that are tested, in the order of the comparisons.

    Holm's correction goes over all of them: every claim, model, data set and protocol. What is
    published is corrected over the claims that have a published difference.
    """
    asked = [e for e in comparisons if e.family == "claim" and e.is_tested]
    sides = [_Side(entry, *_variants(measured, entry)) for entry in asked]
    known = [_oriented(entry) for entry in asked]
    reasons = [_reason(entry) for entry in asked]
    verdicts = judge(
        [
            Asked(difference, entry.margin, reason)
            for entry, difference, reason in zip(asked, known, reasons, strict=True)
        ]
    )
    theirs = [_published(published, side, one) for side, one in zip(sides, known, strict=True)]
    given = [
        AskedPublished(one, values.value, values.stderr, reason)
        for one, values, reason in zip(known, theirs, reasons, strict=True)
        if values is not None
    ]
    judged = iter(judge_published(given))
    level = LEVEL / max(1, len(asked))
    return tuple(
        ClaimFinding(
            side.comparison,
            difference,
            verdict,
            *_seeds(measured, side),
            None
            if values is None
            else PublishedClaim(values.value, values.stderr, next(judged), values.split),
            _reach(measured, side, level, None if values is None else values.value),
        )
        for side, difference, verdict, values in zip(sides, known, verdicts, theirs, strict=True)
    )


def _oriented(entry: Comparison) -> Estimate | None:
    if entry.estimate is None:
        return None
    is_lower_better = entry.group.is_lower_better(entry.column)
    return oriented(entry.estimate, is_lower_better=is_lower_better)


def _reason(entry: Comparison) -> str:
    estimate = entry.estimate
    return UNKNOWN_SEEDS if estimate is not None and estimate.scope == "models" else ""


def _variants(measured: Measurements, entry: Comparison) -> tuple[Variant, Variant]:
    """The two sides of a comparison, which knows their names."""
    named = {name_of(variant): variant for variant in measured.table_variants(entry.model)}
    return named[entry.left], named[entry.right]


def _seeds(measured: Measurements, side: _Side) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds that both sides have a score of, and those that both are planned with."""
    group, column = side.comparison.group, side.comparison.column
    scored = [measured.seeds_with(v, group, column) for v in (side.left, side.right)]
    planned = [measured.cells[variant] for variant in (side.left, side.right)]
    return _common(*scored), _common(*planned)


def _common(first: Mapping[Seed, object], second: Mapping[Seed, object]) -> tuple[int, ...]:
    """Seeds of both; the base model, which has none, stands against every seed."""
    ours, theirs = (second if None in first else first), (first if None in second else second)
    return tuple(sorted(seed for seed in ours if seed is not None and seed in theirs))


def _published(
    published: Published, side: _Side, ours: Estimate | None
) -> PublishedDifference | None:
    entry = side.comparison
    if ours is None:
        return None
    return published_claim(
        published, side.left, side.right, entry.group, entry.column, ours.num_items
    )


def published_claim(
    published: Published,
    left: Variant,
    right: Variant,
    group: Group,
    column: str,
    num_items: int | None = None,
) -> PublishedDifference | None:
    """The published difference of two methods (0..1).

    None unless both were published, and measured as ours; on another split of the same questions
    at most, as neither knows the other's items.
    """
    if any(v.data is not None or v.fraction != 1.0 for v in (left, right)):
        return None
    rows = published.rows_of_two(left, right, column)
    if rows is None or not published.matches(column, group, num_items):
        return None
    first, second, split = rows
    errors = [published.stderr(row, column) for row in (first, second)]
    difference = (first.values[column] - second.values[column]) / 100
    return PublishedDifference(difference, (errors[0] ** 2 + errors[1] ** 2) ** 0.5, split)


def source_text(basis: Basis, stated: SeedSd | None) -> str:
    """Where the spread over seeds is known from, in words."""
    if basis == "stated" and stated is not None:
        return f"the grid's seed_sd, {stated_text(stated)}"
    return "its own seeds" if basis == "own" else "this grid's comparisons"


def stated_text(stated: SeedSd) -> str:
    """A stated spread with its source."""
    return f"{stated.points:g}" + (f" ({stated.source})" if stated.source else "")


def _reach(
    measured: Measurements, side: _Side, level: float, published: float | None
) -> Reach | None:
    entry = side.comparison
    components = measured.components(side.left, side.right, entry.group, entry.column)
    if components is None or entry.estimate is None:
        return None
    number = entry.estimate.num_seeds
    stated = stated_sd(measured.data.seed_sd, entry.group, entry.column)
    return reach_of(
        spread_of(components, number),
        number,
        entry.margin,
        level=level,
        is_share=entry.group.unit(entry.column) is None,
        source=source_text(components.basis, stated),
        published=published,
    )
