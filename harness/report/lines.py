"""TODO: say what this is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import AVERAGES, TABLE_COLUMNS, Group
from harness.analysis.measurements import BASE, Measurements, Variant
from harness.analysis.published import Published, PublishedRow

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate


@dataclass(frozen=True)
class PaperTable:
    """What the paper's table shows."""

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
    estimates: Mapping[str, Estimate | None]
    num_parameters: int | None
    published: PublishedRow | None
    matches: frozenset[str]
    """Columns in which the published value was measured as ours."""


def table_lines(
    measured: Measurements, published: Published, group: Group, paper: PaperTable
) -> list[Line]:
    """Returns the rows of a table, model by model: base first, then the paper's methods.

    Methods that stand in neither of the paper's tables follow in Table 2.
    """
    lines = []
    for model in measured.models:
        variants = measured.table_variants(model)
        names = [BASE, *paper.methods]
        if paper is TABLE_2:
            shown = {BASE, *TABLE_1.methods, *TABLE_2.methods}
            names += [v.method_name for v in variants if v.method_name not in shown]
        for name in dict.fromkeys(names):
            mine = [variant for variant in variants if variant.method_name == name]
            # A method's other settings stand below its own row.
            mine.sort(key=lambda variant: variant.method != variant.method_name)
            lines += [_line(measured, published, group, paper, variant) for variant in mine]
    return lines


def _line(
    measured: Measurements,
    published: Published,
    group: Group,
    paper: PaperTable,
    variant: Variant,
) -> Line:
    estimates = {column: measured.estimate(variant, group, column) for column in TABLE_COLUMNS}
    found = [
        row
        for row in published.tables[paper.name]
        if (row.model, row.method) == (variant.model, variant.method_name)
    ]
    row = found[0] if found and variant.fraction == 1.0 else None
    num_items = {column: estimate.num_items for column, estimate in estimates.items() if estimate}
    matches = {column for column, n in num_items.items() if published.matches(column, group, n)}
    # A column without a score of ours yet still shows what was published, if the protocol matches.
    full = {column: _published_items(published, column) for column in TABLE_COLUMNS}
    matches |= {
        column
        for column in TABLE_COLUMNS
        if column not in num_items and published.matches(column, group, full[column])
    }
    return Line(variant, estimates, _num_parameters(measured, variant), row, frozenset(matches))


def _published_items(published: Published, column: str) -> int:
    return sum(published.columns[part].num_items for part in AVERAGES.get(column, {column: 1.0}))


def _num_parameters(measured: Measurements, variant: Variant) -> int | None:
    ids = set(measured.cells[variant].values())
    cells = measured.data.cells
    known = cells[cells["cell_id"].isin(ids)]["trainable_parameters"].dropna()
    return None if known.empty else int(known.iloc[0])
