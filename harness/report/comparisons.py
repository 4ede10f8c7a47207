"""The comparisons that the claims rest on: paired by item and seed, corrected for their number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.report.estimates import BASE, Measurements, Variant
from harness.report.groups import TABLE_COLUMNS, Group
from harness.report.published import Published
from harness.report.stats import Estimate, holm

CLAIMS = (("zero-init-linear", "random-init"), ("zero-init-nonlinear", "zero-init-linear"))
"""Pairs of registry names: what the paper's Tables 1 and 2 claim."""


@dataclass(frozen=True)
class Comparison:
    """One difference in one column; `estimate` is None where it cannot be told."""

    group: Group
    model: str
    left: str
    """Title of the minuend."""
    right: str
    """Title of the subtrahend."""
    column: str
    estimate: Estimate | None
    p_value: float | None = None
    p_holm: float | None = None
    """Adjusted over the claims, or over the comparisons with base, of the same model and group."""
    test: str = ""
    is_claim: bool = False

    @property
    def label(self) -> str:
        """`left − right`."""
        return f"{self.left} − {self.right}"


def compare(measured: Measurements, group: Group, model: str) -> list[Comparison]:
    """Returns the paired comparisons of a model: the claims first, then each method with base."""
    found = []
    for left, right, is_claim in _pairs(measured.table_variants(model)):
        for column in TABLE_COLUMNS:
            comparison = Comparison(
                group, model, name_of(left), name_of(right), column, None, is_claim=is_claim
            )
            difference = measured.difference(left, right, group, column)
            if difference is not None:
                comparison = replace(
                    comparison,
                    estimate=difference.estimate,
                    p_value=difference.p_value,
                    test=difference.test,
                )
            found.append(comparison)
    # Two families: what the paper claims was asked before any result; the rest is context.
    families = [[entry for entry in found if entry.is_claim is claim] for claim in (True, False)]
    return [
        replace(entry, p_holm=p)
        for family in families
        for entry, p in zip(family, holm([each.p_value for each in family]), strict=True)
    ]


def _pairs(variants: list[Variant]) -> list[tuple[Variant, Variant, bool]]:
    pairs = [
        (left, right, True)
        for left_name, right_name in CLAIMS
        for left in variants
        for right in variants
        if (left.method_name, right.method_name) == (left_name, right_name)
    ]
    bases = [variant for variant in variants if variant.method_name == BASE]
    trained = [variant for variant in variants if variant.method_name != BASE]
    return pairs + [(variant, base, False) for base in bases for variant in trained]


def compare_with_published(
    measured: Measurements, published: Published, group: Group, model: str
) -> list[Comparison]:
    """Returns ours minus the published value wherever both were measured in the same way."""
    found = []
    for variant in measured.table_variants(model):
        row = published.row(model, variant.method_name)
        if row is None or variant.fraction != 1.0:
            continue
        for column in TABLE_COLUMNS:
            ours = measured.estimate(variant, group, column)
            if ours is None or not published.matches(column, group, ours.num_items):
                continue
            difference = published.difference(ours, row, column)
            found.append(
                Comparison(
                    group,
                    model,
                    name_of(variant),
                    "published",
                    column,
                    difference,
                    p_value=difference.p_value,
                    test="t, unpaired",
                )
            )
    return found


def name_of(variant: Variant) -> str:
    """Returns the printed name: the method's title, and the grid's label where it differs."""
    if variant.method == variant.method_name or f"({variant.method})" in variant.title:
        return variant.title
    return f"{variant.title} ({variant.method})"
