"""The rows of the tables of scores: which methods each has, and what stands in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.layout import ScoreTable, listed
from harness.analysis.measurements import Measurements
from harness.analysis.published import Published, PublishedRow
from harness.analysis.scales import scale_of
from harness.analysis.variants import BASE, Variant, name_of
from harness.grid.questions import ALL

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate


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


Lines = Mapping[tuple[ScoreTable, Group], list[Line]]
"""Rows by table and by the group that its columns were measured in, which has them alone."""


def score_lines(measured: Measurements, published: Published) -> Lines:
    """Rows of every table: once for each group that has any of its columns.

    A table that would show nothing but base models is left out where another shows more.
    """
    found: dict[tuple[ScoreTable, Group], list[Line]] = {}
    for table in measured.layout.tables:
        shown: list[Group] = []
        for group in measured.groups:
            columns = table.columns or group.columns
            if table.is_rest != group.is_rest or not any(group.parts(one) for one in columns):
                continue
            view = group.showing(columns)
            if any(view.settings == other.settings for other in shown):
                continue  # all of its columns are lent by one protocol
            shown.append(view)
            if lines := _table_lines(measured, published, view, table):
                found[table, view] = lines
    trained = {key: lines for key, lines in found.items() if any(map(_is_trained, lines))}
    if trained or not found:
        return trained
    last = [table for table, _ in found if not table.is_rest][-1:]
    return {key: lines for key, lines in found.items() if key[0] in last or key[0].is_rest}


def title_of(table: ScoreTable, group: Group) -> str:
    """What a table shows; one that the grid does not state names its columns."""
    return table.title if table.columns else f"{table.title}: {listed(group.columns)}"


def _is_trained(line: Line) -> bool:
    return line.variant.method_name != BASE


def _table_lines(
    measured: Measurements, published: Published, group: Group, table: ScoreTable
) -> list[Line]:
    """Rows of a table, model by model: base first, then methods by data set."""
    chosen = [v for model in measured.models for v in _table_variants(measured, model, table)]
    lines = []
    for variant in chosen:
        estimates = {name: measured.estimate(variant, group, name) for name in group.columns}
        matches = {
            column
            for column, ours in estimates.items()
            if published.matches(column, group, ours.num_items if ours else None)
        }
        row = None
        if table.published is not None and variant.fraction == 1.0 and variant.data is None:
            row = published.table_row(table.published, variant)
        lines.append(
            Line(
                variant=variant,
                name=_row_name(measured, variant, chosen),
                estimates=estimates,
                num_parameters=_num_parameters(measured, variant),
                published=row,
                matches=frozenset(matches),
            )
        )
    rivals = [line for line in lines if _is_rival(measured, line.variant, table)]
    return [replace(line, best=_best_columns(line, rivals, group)) for line in lines]


def _table_variants(measured: Measurements, model: str, table: ScoreTable) -> list[Variant]:
    """A model's variants in a table, in the order of its rows."""
    variants = measured.table_variants(model)
    chosen = [variant for variant in variants if variant.method_name == BASE]
    for data in measured.data_sets(model):
        mine = [v for v in variants if v.data == data and v.method_name != BASE]
        for name in table.rows or dict.fromkeys(v.method_name for v in mine):
            meant = [v for v in mine if name in (v.method, v.method_name) and v not in chosen]
            chosen += sorted(meant, key=lambda variant: variant.method != variant.method_name)
    return chosen + [v for v in variants if v.fraction is None and v not in chosen]


def _row_name(measured: Measurements, variant: Variant, chosen: Sequence[Variant]) -> str:
    """A setting stands below its method's own row, where the table has that."""
    own = variant.model, variant.method_name, variant.data
    heads = {(v.model, v.method, v.data) for v in chosen}
    return measured.row_name(variant) if own in heads else name_of(variant)


def _num_parameters(measured: Measurements, variant: Variant) -> int | None:
    ids = set(measured.cells[variant].values())
    cells = measured.data.cells
    known = cells[cells["cell_id"].isin(ids)]["trainable_parameters"].dropna()
    return None if known.empty else int(known.iloc[0])


def _is_rival(measured: Measurements, variant: Variant, table: ScoreTable) -> bool:
    """Whether a variant is one of those of which the best is bold."""
    if variant.method in table.bold and variant.method != variant.method_name:
        return True
    meant = ALL in table.bold or variant.method_name in table.bold
    return meant and variant in measured.standing


def _best_columns(line: Line, rivals: Sequence[Line], group: Group) -> frozenset[str]:
    """Columns in which a line is better than all its rivals of the same model and data.

    One of them at least is of another method: settings of one alone are not compared so.
    """
    mine = line.variant
    others = [
        other
        for other in rivals
        if other is not line
        and other.variant.model == mine.model
        and (other.variant.data == mine.data or BASE in (other.variant.method_name, mine.method))
    ]
    if line not in rivals or all(other.variant.method_name == mine.method_name for other in others):
        return frozenset()
    best = set()
    for column, ours in line.estimates.items():
        known = [other.estimates[column] for other in others]
        theirs = [estimate.value for estimate in known if estimate is not None]
        if ours is None or len(theirs) < len(known):
            continue
        scale = scale_of(group.unit(column), [ours.value, *theirs])
        sign = -1 if group.is_lower_better(column) else 1
        if all(sign * scale.rounded(ours.value) > sign * scale.rounded(one) for one in theirs):
            best.add(column)
    return frozenset(best)
