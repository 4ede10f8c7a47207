"""What a row of the tables stands for: a model, trained by a method on a share of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.columns import is_missing

BASE = "base"
"""Registry name of the untrained model."""
PICTURES = "picture_layers"
"""A column of the frames where any method takes pictures: see `Variant.picture_layers`."""


@dataclass(frozen=True)
class Variant:
    """A model trained by one method on one fraction of the data, over all its seeds."""

    model: str
    method: str
    """The label in the grid."""
    method_name: str
    title: str
    fraction: float | None
    """None for the untrained base model."""
    data: str | None = None
    """The data set's name in the grid; None where the grid has one set alone, and of the base
    model."""
    picture_layers: int | None = field(default=None, compare=False)
    """Of a method that takes pictures: layers that carry a prompt; None of one that does not."""


def variant_of(row: Mapping[str, Any]) -> Variant:
    """Variant of a row of any of the frames."""
    return Variant(
        model=row["model"],
        method=row["method"],
        method_name=row["method_name"],
        title=row["method_title"],
        fraction=None if is_missing(row["fraction"]) else float(row["fraction"]),
        data=None if is_missing(row.get("data")) or is_missing(row["fraction"]) else row["data"],
        picture_layers=None if is_missing(row.get(PICTURES)) else int(row[PICTURES]),
    )


def representatives(variants: Sequence[Variant]) -> list[Variant]:
    """Variants that stand for their methods.

    That is a method under its registry name. Where the grid has it so, its other labels are
    settings of it, to be compared with it; where not, each label stands for itself.
    """
    plain = {(v.model, v.method_name, v.data) for v in variants if v.method == v.method_name}
    return [
        v
        for v in variants
        if v.method == v.method_name or (v.model, v.method_name, v.data) not in plain
    ]


def named(name: str, variants: Sequence[Variant]) -> list[Variant]:
    """The variants that a label means; of a registry name those that stand for the method."""
    own = [variant for variant in variants if variant.method == name]
    return own or [v for v in representatives(variants) if v.method_name == name]


def name_of(variant: Variant) -> str:
    """Printed name: the method's title, the grid's label where it differs, and the data set where
    the grid has several.
    """
    is_said = variant.method == variant.method_name or f"({variant.method})" in variant.title
    return variant.title + f" ({variant.method})" * (not is_said) + on_text(variant)


def label_of(variant: Variant) -> str:
    """The grid's label, and the data set where the grid has several."""
    return variant.method + on_text(variant)


def on_text(variant: Variant) -> str:
    """What a name ends with where the grid has several data sets."""
    return "" if variant.data is None else f" on {variant.data}"
