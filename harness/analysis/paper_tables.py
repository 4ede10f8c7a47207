"""The tables of scores: the paper's Tables 1 and 2, and one of the other benchmarks.

Which rows each has, what stands in each row, and what its title says of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.columns import OTHERS, Group
from harness.analysis.measurements import BASE, Measurements, Variant
from harness.analysis.published import Published, PublishedRow
from harness.methods import METHODS

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate

DIGITS = 2
"""Decimals of a printed percent: values that look the same are a tie."""
MOST_NAMED = 6
"""Methods or benchmarks that a title names."""


@dataclass(frozen=True)
class PaperTable:
    """What a table of scores shows."""

    name: str
    number: str
    """How its title begins; the document that a LaTeX table stands in has numbers of its own."""
    subject: str
    """What the paper says that it shows."""
    methods: tuple[str, ...]
    """Registry names, in the paper's order."""
    has_params: bool
    has_others: bool
    """Whether the methods follow that stand in neither of the paper's tables."""
    bold: tuple[str, ...] = ()
    """The better of these methods is bold, per model and column."""
    is_paper: bool = True
    """Whether its columns are the paper's; else those of the other benchmarks."""

    @property
    def title(self) -> str:
        """The title of the paper's whole table."""
        return self.number + self.subject


TABLE_1 = PaperTable(
    name="table1",
    number="Table 1. ",
    subject="Zero-init attention (linear) against random-init attention",
    methods=("zero-init-linear", "random-init"),
    has_params=False,
    has_others=False,
)

TABLE_2 = PaperTable(
    name="table2",
    number="Table 2. ",
    subject="Full fine-tuning, LoRA, and zero-init attention, linear and non-linear",
    methods=("full", "lora", "zero-init-linear", "zero-init-nonlinear"),
    has_params=True,
    has_others=True,
    bold=("zero-init-linear", "zero-init-nonlinear"),
)

OTHER_BENCHMARKS = PaperTable(
    name=OTHERS,
    number="",
    subject="Benchmarks outside the paper's tables",
    methods=("full", "lora", "random-init", "zero-init-linear", "zero-init-nonlinear"),
    has_params=True,
    has_others=True,
    is_paper=False,
)

PAPER_TABLES = (TABLE_1, TABLE_2, OTHER_BENCHMARKS)


def title_of(paper: PaperTable, group: Group, lines: Sequence[Line], published: Published) -> str:
    """What a table with these rows shows.

    The paper's own title stands where no method is missing that the paper has for these models
    (or, of other models, in this table), and none was added.
    """
    if not paper.is_paper:
        return f"{paper.subject}: {listed(group.columns)}"
    models = {line.variant.model for line in lines}
    theirs = {row.method for row in published.tables[paper.name] if row.model in models}
    wanted = theirs or set(paper.methods)
    names = {line.variant.method_name: _method_title(line.variant) for line in lines}
    mine = [names[name] for name in paper.methods if name in names]
    added = [title for name, title in names.items() if name not in {BASE, *paper.methods}]
    if wanted <= names.keys():
        return paper.title + (f"; and not in the paper's: {listed(added)}" if added else "")
    if mine:
        others = f"; and not in the paper's: {listed(added)}" if added else ""
        return f"{paper.number}{listed(mine)}: a part of the paper's table{others}"
    if added:
        return f"Methods that are not in the paper's tables: {listed(added)}"
    return "The untrained base model"


def listed(names: Iterable[str]) -> str:
    """Names, of many the first ones and the number of the others."""
    found = list(dict.fromkeys(names))
    if len(found) <= MOST_NAMED + 1:
        return ", ".join(found)
    return f"{', '.join(found[:MOST_NAMED])} and {len(found) - MOST_NAMED} more"


def _method_title(variant: Variant) -> str:
    known = METHODS.get(variant.method_name)
    return known.title if known else variant.title.removesuffix(f" ({variant.method})")


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
    """Rows of a table, model by model: base first, then the paper's methods, then the others.

    None where the group's columns are not the table's, or where it would show nothing but base
    models that another table shows.
    """
    chosen = [v for model in measured.models for v in _table_variants(measured, model, paper)]
    trained = any(variant.method_name != BASE for variant in chosen)
    # Table 2 shows the base model where nothing is trained at all.
    nothing_else = paper.has_others and all(v.method_name == BASE for v in measured.tabled)
    if group.is_paper != paper.is_paper or not (trained or nothing_else):
        return []
    lines = []
    for variant in chosen:
        estimates = {name: measured.estimate(variant, group, name) for name in group.columns}
        matches = {
            column
            for column, ours in estimates.items()
            if published.matches(column, group, ours.num_items if ours else None)
        }
        row = None
        if paper.is_paper and variant.fraction == 1.0:
            row = published.table_row(paper.name, variant.model, variant.method_name)
        lines.append(
            Line(
                variant=variant,
                name=measured.row_name(variant),
                estimates=estimates,
                num_parameters=_num_parameters(measured, variant),
                published=row,
                matches=frozenset(matches),
            )
        )
    rivals = [
        line
        for line in lines
        if line.variant in measured.standing and line.variant.method_name in paper.bold
    ]
    return [replace(line, best=_best_columns(line, rivals, group)) for line in lines]


def _table_variants(measured: Measurements, model: str, paper: PaperTable) -> list[Variant]:
    """A model's variants in a table, in the order of its rows."""
    variants = measured.table_variants(model)
    names = [BASE, *paper.methods]
    if paper.has_others:
        elsewhere = {*TABLE_1.methods, *TABLE_2.methods}
        names += [v.method_name for v in variants if v.method_name not in elsewhere]
    chosen: list[Variant] = []
    for name in dict.fromkeys(names):
        mine = [variant for variant in variants if variant.method_name == name]
        chosen += sorted(mine, key=lambda variant: variant.method != variant.method_name)
    return chosen


def _num_parameters(measured: Measurements, variant: Variant) -> int | None:
    ids = set(measured.cells[variant].values())
    cells = measured.data.cells
    known = cells[cells["cell_id"].isin(ids)]["trainable_parameters"].dropna()
    return None if known.empty else int(known.iloc[0])


def _best_columns(line: Line, rivals: Sequence[Line], group: Group) -> frozenset[str]:
    """Columns in which a line is better than all its rivals of the same model.

    One of them at least is of another method: settings of one alone are not compared so.
    """
    others = [
        other for other in rivals if other is not line and other.variant.model == line.variant.model
    ]
    if line not in rivals or all(
        other.variant.method_name == line.variant.method_name for other in others
    ):
        return frozenset()
    return frozenset(
        column
        for column, ours in line.estimates.items()
        if all(
            _is_better(ours, other.estimates[column], lower=column in group.lower_is_better)
            for other in others
        )
    )


def _is_better(ours: Estimate | None, theirs: Estimate | None, *, lower: bool) -> bool:
    if ours is None or theirs is None:
        return False
    difference = round(100 * ours.value, DIGITS) - round(100 * theirs.value, DIGITS)
    return difference < 0 if lower else difference > 0
