"""The paper's Tables 1 and 2, with our values, their standard errors, and the published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.columns import TABLE_COLUMNS, Group
from harness.analysis.findings import Findings
from harness.analysis.paper_tables import Line, PaperTable
from harness.report.captions import NO_ITEMS, table_caption, table_notes
from harness.report.numbers import MISSING, estimate_record, percent, short_count
from harness.report.render import Entry, Row, Table

if TYPE_CHECKING:
    from harness.analysis.published import PublishedRow
    from harness.analysis.stats import Estimate


def paper_tables(paper: PaperTable, findings: Findings, digits: int = 2) -> list[Table]:
    """A table of the paper, once per group.

    Args:
        paper: which table.
        findings: of the grid.
        digits: decimals of a percent.
    """
    return [_table(findings, group, paper, digits) for group in findings.measured.groups]


def _table(findings: Findings, group: Group, paper: PaperTable, digits: int) -> Table:
    lines = findings.lines[paper, group]
    rows: list[Row] = []
    model = None
    for line in lines:
        rows.append(_value_row(line, paper, line.variant.model != model, digits))
        model = line.variant.model
        if line.published is not None:
            rows.append(_published_row(line, line.published, paper))
    chances = [findings.measured.chance(group, column) for column in TABLE_COLUMNS]
    values = [Entry() if chance is None else Entry(percent(chance, digits)) for chance in chances]
    blanks = [Entry("")] * (2 if paper.has_params else 1)
    chance_entries = (Entry(""), Entry("Chance"), *blanks, *values)
    rows.append(Row(chance_entries, starts_block=True, is_reference=True))
    head = ("Model", "Method") + (("Params",) if paper.has_params else ()) + ("Seeds",)
    return Table(
        name=paper.name + group.suffix(),
        title=paper.title,
        subtitle=group.title,
        header=(*head, *map(group.head, TABLE_COLUMNS)),
        rows=tuple(rows),
        caption=table_caption(findings, group, paper),
        notes=table_notes(lines, group),
        num_text_columns=2,
    )


def _value_row(line: Line, paper: PaperTable, starts: bool, digits: int) -> Row:
    head = [Entry(line.variant.model if starts else ""), Entry(line.name)]
    if paper.has_params:
        head.append(Entry(short_count(line.num_parameters)))
    seeds = sorted({estimate.num_seeds for estimate in line.estimates.values() if estimate})
    shown = "–".join(dict.fromkeys(str(n) for n in (seeds[0], seeds[-1]))) if seeds else MISSING
    head.append(Entry("" if line.variant.fraction is None and seeds else shown))
    values = [_entry(line.estimates[c], c in line.best, digits) for c in TABLE_COLUMNS]
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
    return Row((*head, *values), is_reference=True)


def table_records(paper: PaperTable, findings: Findings) -> list[dict[str, object]]:
    """A table of the paper as tidy records, one per row and column, for its CSV."""
    return [
        _record(paper, group, line, column)
        for group in findings.measured.groups
        for line in findings.lines[paper, group]
        for column in TABLE_COLUMNS
    ]


def _record(paper: PaperTable, group: Group, line: Line, column: str) -> dict[str, object]:
    estimate, setting = line.estimates[column], group.settings.get(column)
    published = line.published if column in line.matches else None
    return {
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
        **estimate_record(estimate, "value", "percent"),
        "stderr_from_items": estimate.from_items if estimate else None,
        "published_percent": published.values[column] if published else None,
    }
