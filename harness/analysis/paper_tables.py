"""The paper's Tables 1 and 2: which rows they have, and what stands in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.columns import TABLE_COLUMNS, Group
from harness.analysis.measurements import BASE, Measurements, Variant
from harness.analysis.published import Published, PublishedRow

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate

DIGITS = 2
"""Decimals of a printed percent: values that look the same are a tie."""


@dataclass(frozen=True)
class PaperTable:
    """What a table of the paper shows."""

    name: str
    title: str
    methods: tuple[str, ...]
    """Registry names, in the paper's order."""
    has_params: bool
    bold: tuple[str, ...] = ()
    """The better of these methods is bold, per model and column."""


TABLE_1 = PaperTable(
    name="table1",
    title="Table 1. Zero-init attention (linear) against random-init attention",
    methods=("zero-init-linear", "random-init"),
    has_params=False,
)

TABLE_2 = PaperTable(
    name="table2",
    title="Table 2. Full fine-tuning, LoRA, and zero-init attention, linear and non-linear",
    methods=("full", "lora", "zero-init-linear", "zero-init-nonlinear"),
    has_params=True,
    bold=("zero-init-linear", "zero-init-nonlinear"),
)


@dataclass(frozen=True)
class Line:
    """A variant's row: its estimates by column, and the published row beside it."""

    variant: Variant
    name: str
    """As printed: a method's other settings stand below its own row."""
    estimates: Mapping[str, Estimate | None]
    num_parameters: int | None
    published: PublishedRow | None
    matches: frozenset[str]
    """Columns in which the published value was measured as ours."""
    best: frozenset[str] = frozenset()
    """Columns in which it is better than all its rivals, and so bold."""


def table_lines(
    measured: Measurements, published: Published, group: Group, paper: PaperTable
) -> list[Line]:
    """Rows of a table, model by model: base first, then the paper's methods.

    Methods that stand in neither of the paper's tables follow in Table 2.
    """
    chosen: list[Variant] = []
    for model in measured.models:
        variants = measured.table_variants(model)
        names = [BASE, *paper.methods]
        if paper is TABLE_2:
            shown = {BASE, *TABLE_1.methods, *TABLE_2.methods}
            names += [v.method_name for v in variants if v.method_name not in shown]
        for name in dict.fromkeys(names):
            mine = [variant for variant in variants if variant.method_name == name]
            chosen += sorted(mine, key=lambda variant: variant.method != variant.method_name)
    lines = []
    for variant in chosen:
        estimates = {name: measured.estimate(variant, group, name) for name in TABLE_COLUMNS}
        matches = {
            column
            for column, ours in estimates.items()
            if published.matches(column, group, ours.num_items if ours else None)
        }
        row = published.table_row(paper.name, variant.model, variant.method_name)
        lines.append(
            Line(
                variant=variant,
                name=measured.row_name(variant),
                estimates=estimates,
                num_parameters=_num_parameters(measured, variant),
                published=row if variant.fraction == 1.0 else None,
                matches=frozenset(matches),
            )
        )
    rivals = [
        line
        for line in lines
        if line.variant in measured.standing and line.variant.method_name in paper.bold
    ]
    return [replace(line, best=_best_columns(line, rivals)) for line in lines]


def _num_parameters(measured: Measurements, variant: Variant) -> int | None:
    ids = set(measured.cells[variant].values())
    cells = measured.data.cells
    known = cells[cells["cell_id"].isin(ids)]["trainable_parameters"].dropna()
    return None if known.empty else int(known.iloc[0])


def _best_columns(line: Line, rivals: Sequence[Line]) -> frozenset[str]:
    variant = line.variant
    others = [
        other
        for other in rivals
        if other.variant.model == variant.model and other.variant.method_name != variant.method_name
    ]
    return frozenset(
        column
        for column, ours in line.estimates.items()
        if line in rivals
        and others
        and all(_is_better(ours, other.estimates[column]) for other in others)
    )


def _is_better(ours: Estimate | None, theirs: Estimate | None) -> bool:
    if ours is None or theirs is None:
        return False
    return round(100 * ours.value, DIGITS) > round(100 * theirs.value, DIGITS)
