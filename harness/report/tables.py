"""The paper's Tables 1 and 2, with our values, their standard errors, and the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from harness.analysis.columns import TABLE_COLUMNS, Group
from harness.analysis.findings import Findings
from harness.analysis.measurements import Measurements
from harness.analysis.paper_tables import Line, PaperTable
from harness.report.numbers import MISSING, estimate_record, percent, share_text, short_count
from harness.report.render import Entry, Row, Table, row

if TYPE_CHECKING:
    from harness.analysis.published import PublishedRow
    from harness.analysis.stats import Estimate


NO_ITEMS = "†"
"""Marks a standard error that was made without per-item records."""

STDERR = (
    "The standard error takes items and seeds as crossed random samples: with A the score of one "
    "seed, S² its variance over the k seeds, and MS the mean squares of each benchmark's seeds × n "
    "items table, it is the root of max(S²/k, Σ w² MS(rest)/(k·n)) + Σ w² max(0, MS(items) − "
    "MS(rest))/(k·n); of one seed: Σ w² var(items)/n, which knows nothing of other seeds. w is a "
    "benchmark's weight in an average."
)


def paper_tables(paper: PaperTable, findings: Findings, digits: int = 2) -> list[Table]:
    """A table of the paper, once per group; `digits` are the decimals of a percent."""
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
    values = [percent(chance, digits) for chance in chances]
    blanks = [""] * (2 if paper.has_params else 1)
    rows.append(row("", "Chance", *blanks, *values, starts_block=True, is_reference=True))
    head = ("Model", "Method", *["Params"] * paper.has_params, "Seeds")
    return Table(
        name=paper.name + group.suffix(),
        title=paper.title,
        subtitle=group.title,
        header=(*head, *map(group.head, TABLE_COLUMNS)),
        rows=tuple(rows),
        caption=_caption(findings, group, paper),
        notes=_notes(lines, group),
        num_text_columns=2,
    )


def _caption(findings: Findings, group: Group, paper: PaperTable) -> tuple[str, ...]:
    lines, measured = findings.lines[paper, group], findings.measured
    metrics = ", ".join(f"{c} {setting.metric}" for c, setting in group.settings.items())
    texts = [
        f"Percent ± one standard error. {_trained_on(measured)} Seeds: trained models behind a "
        f"row. Metrics: {metrics} (MMLU: mean over all questions; TruthfulQA: mc1).",
        STDERR,
        "ARC avg: unweighted mean of Easy and Challenge. Average: mean of ARC avg, MMLU, HellaSwag "
        f"and TruthfulQA. {MISSING}: not measured, or a part of it is not.",
    ]
    if paper.bold:
        texts.append(
            "Bold: the better of linear and non-linear per model, as in the paper; it says nothing "
            "of significance (see the paired comparisons)."
        )
    if any(line.name.startswith("…") for line in lines):
        texts.append("…: the method of the row above with other settings; the label is the grid's.")
    if any(line.published is not None for line in lines):
        texts.append(
            f"Published: as printed in the paper; {MISSING} where it was measured with another "
            "protocol or number of items than this column."
        )
    else:
        texts.append("The paper has no row for these models and data: no published values.")
    return tuple(texts)


def _trained_on(measured: Measurements) -> str:
    fractions = {model: measured.fractions(model) for model in measured.models}
    shares = {model: share_text(found[-1]) for model, found in fractions.items() if found}
    if len(set(shares.values())) == 1:
        return f"Trained on {shares.popitem()[1]} of the training data."
    each = ", ".join(f"{model} {share}" for model, share in shares.items())
    return f"Trained on a share of the training data: {each}." if each else ""


def _notes(lines: Sequence[Line], group: Group) -> tuple[str, ...]:
    """What must be said below a table everywhere: deviations, and bounds for errors."""
    estimates = [estimate for line in lines for estimate in line.estimates.values() if estimate]
    if any(estimate.stderr is not None and not estimate.from_items for estimate in estimates):
        bound = (
            f"{NO_ITEMS} Without the per-item records of every seed: the root of S²/k + Σ w² "
            "mean(item variance), an upper bound."
        )
        return (*group.notes, bound)
    return group.notes


def _value_row(line: Line, paper: PaperTable, starts: bool, digits: int) -> Row:
    head = [line.variant.model if starts else "", line.name]
    head += [short_count(line.num_parameters)] * paper.has_params
    seeds = sorted({estimate.num_seeds for estimate in line.estimates.values() if estimate})
    shown = "–".join(dict.fromkeys(str(n) for n in (seeds[0], seeds[-1]))) if seeds else MISSING
    head.append("" if line.variant.fraction is None and seeds else shown)
    values = [_entry(line.estimates[c], c in line.best, digits) for c in TABLE_COLUMNS]
    return row(*head, *values, starts_block=starts)


def _entry(estimate: Estimate | None, bold: bool, digits: int) -> Entry:
    if estimate is None:
        return Entry()
    error = ""
    if estimate.stderr is not None:
        error = f"± {percent(estimate.stderr, digits)}"
        error += "" if estimate.from_items else NO_ITEMS
    return Entry(percent(estimate.value, digits), error, bold)


def _published_row(line: Line, published: PublishedRow, paper: PaperTable) -> Row:
    head = ["", "published", *[published.params or MISSING] * paper.has_params, ""]
    values = [
        f"{published.values[column]:.2f}" if column in line.matches else MISSING
        for column in TABLE_COLUMNS
    ]
    return row(*head, *values, is_reference=True)


def table_records(paper: PaperTable, findings: Findings) -> list[dict[str, object]]:
    """A table of the paper as tidy records, one per row and column, for its CSV."""
    records: list[dict[str, object]] = []
    for group in findings.measured.groups:
        for line, column in product(findings.lines[paper, group], TABLE_COLUMNS):
            estimate, setting = line.estimates[column], group.settings.get(column)
            published = line.published if column in line.matches else None
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
                    **estimate_record(estimate, "value", "percent"),
                    "stderr_from_items": estimate.from_items if estimate else None,
                    "published_percent": published.values[column] if published else None,
                }
            )
    return records
