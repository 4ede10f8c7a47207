"""The paper's Tables 1 and 2, with our values, their standard errors, and the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import AVERAGES, TABLE_COLUMNS, Group
from harness.analysis.comparisons import representatives, row_name
from harness.analysis.measurements import Measurements
from harness.analysis.published import PublishedRow
from harness.report.captions import NO_ITEMS, table_caption, table_notes
from harness.report.lines import Line, PaperTable
from harness.report.numbers import MISSING, percent, short_count
from harness.report.render import Entry, Row, Table

if TYPE_CHECKING:
    from harness.analysis.stats import Estimate


def paper_table(
    measured: Measurements,
    lines: Sequence[Line],
    group: Group,
    paper: PaperTable,
    *,
    digits: int = 2,
) -> Table:
    """Returns a paper's table for one group.

    Args:
        measured: the grid's scores.
        lines: of `table_lines`.
        group: the group of the lines.
        paper: which table.
        digits: decimals of a percent.
    """
    rows: list[Row] = []
    model = None
    for line in lines:
        starts = line.variant.model != model
        model = line.variant.model
        bold = _bold_columns(line, lines, paper, digits)
        name = row_name(line.variant, [other.variant for other in lines])
        rows.append(_value_row(line, name, paper, bold, starts, digits))
        if line.published is not None:
            rows.append(_published_row(line, line.published, paper))
    rows.append(_chance_row(measured, group, paper, digits))
    head = ("Model", "Method") + (("Params",) if paper.has_params else ()) + ("Seeds",)
    return Table(
        name=paper.name + group.suffix(),
        title=paper.title,
        subtitle=group.title,
        header=(*head, *map(group.head, TABLE_COLUMNS)),
        rows=tuple(rows),
        caption=table_caption(measured, lines, group, has_bold=bool(paper.bold)),
        notes=table_notes(lines, group),
        num_text_columns=2,
    )


def _value_row(
    line: Line, name: str, paper: PaperTable, bold: set[str], starts: bool, digits: int
) -> Row:
    head = [Entry(line.variant.model if starts else ""), Entry(name)]
    if paper.has_params:
        head.append(Entry(short_count(line.num_parameters)))
    seeds = sorted({estimate.num_seeds for estimate in line.estimates.values() if estimate})
    shown = MISSING if not seeds else str(seeds[0])
    if len(seeds) > 1:
        shown = f"{seeds[0]}–{seeds[-1]}"
    head.append(Entry("" if line.variant.fraction is None and seeds else shown))
    values = [_entry(line.estimates[column], column in bold, digits) for column in TABLE_COLUMNS]
    return Row((*head, *values), starts_block=starts)


def _entry(estimate: Estimate | None, bold: bool, digits: int) -> Entry:
    if estimate is None:
        return Entry()
    error = ""
    if estimate.stderr is not None:
        error = f"± {percent(estimate.stderr, digits)}"
        error += "" if estimate.from_items else NO_ITEMS
    return Entry(percent(estimate.value, digits), error, bold)


def _published_row(line: Line, row: PublishedRow, paper: PaperTable) -> Row:
    head = [Entry(""), Entry("published")]
    if paper.has_params:
        head.append(Entry(row.params or MISSING))
    head.append(Entry(""))
    values = [
        Entry(f"{row.values[column]:.2f}") if column in line.matches else Entry()
        for column in TABLE_COLUMNS
    ]
    return Row((*head, *values), is_aside=True)


def _chance_row(measured: Measurements, group: Group, paper: PaperTable, digits: int) -> Row:
    values = []
    for column in TABLE_COLUMNS:
        chance = chance_level(measured, group, column)
        values.append(Entry() if chance is None else Entry(percent(chance, digits)))
    blanks = [Entry("")] * (2 if paper.has_params else 1)
    return Row((Entry(""), Entry("Chance"), *blanks, *values), starts_block=True, is_aside=True)


def chance_level(measured: Measurements, group: Group, column: str) -> float | None:
    """Returns the expected score of random answers (0..1), None where it is not defined."""
    total = 0.0
    for part, weight in AVERAGES.get(column, {column: 1.0}).items():
        setting = group.settings.get(part)
        chance = measured.benchmarks[setting.benchmark].chance if setting else None
        if chance is None:
            return None
        total += weight * chance
    return total


def _bold_columns(line: Line, lines: Sequence[Line], paper: PaperTable, digits: int) -> set[str]:
    """Returns the columns in which the line is better than all its rivals, as printed."""
    standing = representatives([other.variant for other in lines])
    if line.variant.method_name not in paper.bold or line.variant not in standing:
        return set()
    rivals = [
        other
        for other in lines
        if other.variant.model == line.variant.model
        and other.variant in standing
        and other.variant.method_name in paper.bold
        and other.variant.method_name != line.variant.method_name
    ]
    best = set()
    for column in TABLE_COLUMNS:
        ours = line.estimates[column]
        theirs = [other.estimates[column] for other in rivals]
        known = [estimate for estimate in theirs if estimate is not None]
        if ours is None or not known or len(known) < len(theirs):
            continue
        # Rounded as printed: two values that look the same are a tie.
        if all(_rounded(ours, digits) > _rounded(each, digits) for each in known):
            best.add(column)
    return best


def _rounded(estimate: Estimate, digits: int) -> float:
    return round(100 * estimate.value, digits)


def table_records(
    paper: PaperTable, group: Group, lines: Sequence[Line]
) -> list[dict[str, object]]:
    """Returns the table as tidy records, one per row and column, for its CSV."""
    records: list[dict[str, object]] = []
    for line in lines:
        for column in TABLE_COLUMNS:
            estimate, setting = line.estimates[column], group.settings.get(column)
            low, high = (estimate.interval if estimate else None) or (None, None)
            shown = line.published if column in line.matches else None
            records.append(
                {
                    "table": paper.name,
                    "protocol": setting.protocol if setting else group.protocol,
                    "model": line.variant.model,
                    "method": line.variant.method,
                    "fraction": line.variant.fraction,
                    "trainable_parameters": line.num_parameters,
                    "column": column,
                    "metric": setting.metric if setting else None,
                    "shots": setting.shots if setting else None,
                    "limit": setting.limit if setting else None,
                    "num_seeds": estimate.num_seeds if estimate else None,
                    "num_items": estimate.num_items if estimate else None,
                    "value_percent": _times_100(estimate.value if estimate else None),
                    "stderr_percent": _times_100(estimate.stderr if estimate else None),
                    "low_percent": _times_100(low),
                    "high_percent": _times_100(high),
                    "stderr_from_items": estimate.from_items if estimate else None,
                    "published_percent": shown.values[column] if shown else None,
                }
            )
    return records


def _times_100(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 6)
