"""The comparisons that the claims rest on: paired by item and seed, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from harness.analysis.columns import Group
from harness.analysis.measurements import (
    BASE,
    Measurements,
    Variant,
    name_of,
    representatives,
)
from harness.analysis.published import Published
from harness.analysis.stats import Estimate, holm

CLAIMS = (("zero-init-linear", "random-init"), ("zero-init-nonlinear", "zero-init-linear"))
"""Pairs of registry names: what the paper's Tables 1 and 2 claim."""

ALPHA = 0.05
"""Adjusted p below which a difference is called significant."""

Family = Literal["claim", "setting", "context"]
"""What the paper claims, which was asked before any result; a method's other settings against its
own; trained methods against the base model."""


@dataclass(frozen=True)
class Comparison:
    """One difference in one column; `estimate` is None where it is unknown."""

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
    """Adjusted over the comparisons of the same family, model and group."""
    test: str = ""
    family: Family | None = None
    """What it is asked for; None for a difference from a published value."""

    @property
    def is_claim(self) -> bool:
        """Whether the paper claims something of it."""
        return self.family == "claim"

    @property
    def is_significant(self) -> bool:
        """Whether its adjusted p is below ALPHA."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def label(self) -> str:
        """`left − right`."""
        return f"{self.left} − {self.right}"


def compare(measured: Measurements, group: Group, model: str) -> list[Comparison]:
    """Paired comparisons of a model: the claims first, then settings, then base."""
    found = []
    for left, right, family in _pairs(measured.table_variants(model)):
        for column in group.columns:
            # Of a setting the label says enough: its own method is what it stands against.
            name = left.method if family == "setting" else name_of(left)
            difference = measured.difference(left, right, group, column)
            numbers = vars(difference) if difference is not None else {"estimate": None}
            names = name, name_of(right)
            found.append(Comparison(group, model, *names, column, **numbers, family=family))
    families = [[entry for entry in found if entry.family == name] for name in get_args(Family)]
    return [
        replace(entry, p_holm=p)
        for family in families
        for entry, p in zip(family, holm([each.p_value for each in family]), strict=True)
    ]


def headlines(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """One comparison per claim, model and group: on the Average, or else on ARC avg."""
    chosen = {}
    for column in ("ARC avg", "Average"):
        for entry in comparisons:
            if entry.is_claim and entry.column == column and entry.estimate is not None:
                chosen[entry.group, entry.model, entry.label] = entry
    keys = dict.fromkeys((entry.group, entry.model, entry.label) for entry in comparisons)
    return tuple(chosen[key] for key in keys if key in chosen)


def _pairs(variants: list[Variant]) -> list[tuple[Variant, Variant, Family]]:
    standing = representatives(variants)
    pairs: list[tuple[Variant, Variant, Family]] = [
        (left, right, "claim")
        for left_name, right_name in CLAIMS
        for left in standing
        for right in standing
        if (left.method_name, right.method_name) == (left_name, right_name)
    ]
    pairs += [
        (setting, own, "setting")
        for setting in variants
        if setting not in standing
        for own in standing
        if own.method_name == setting.method_name
    ]
    bases = [variant for variant in standing if variant.method_name == BASE]
    trained = [variant for variant in standing if variant.method_name != BASE]
    return pairs + [(variant, base, "context") for base in bases for variant in trained]


def compare_with_published(
    measured: Measurements, published: Published, group: Group, model: str
) -> list[Comparison]:
    """Ours minus the published value wherever both were measured in the same way."""
    found = []
    for variant in measured.table_variants(model):
        row = published.row(model, variant.method_name)
        if row is None or variant.fraction != 1.0:
            continue
        for column in group.columns:
            ours = measured.estimate(variant, group, column)
            if ours is None or not published.matches(column, group, ours.num_items):
                continue
            difference = published.difference(ours, row, column)
            names, p_value = (name_of(variant), "published"), difference.p_value
            found.append(
                Comparison(group, model, *names, column, difference, p_value, test="t, unpaired")
            )
    return found
