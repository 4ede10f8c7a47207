"""The comparisons as tables: one column per benchmark, one line each, and records for the CSV."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import TABLE_COLUMNS, Group
from harness.analysis.comparisons import ALPHA, Comparison
from harness.analysis.findings import Findings
from harness.report.numbers import (
    MISSING,
    estimate_record,
    interval_text,
    p_text,
    percent,
    points,
)
from harness.report.render import Entry, Table, blocks


def comparison_tables(findings: Findings, digits: int = 2) -> list[Table]:
    """Comparisons with one row per pair and one column per benchmark, once per group."""
    return [_wide(found, group, digits) for group, found in findings.comparisons.items()]


def _wide(comparisons: Sequence[Comparison], group: Group, digits: int) -> Table:
    lines: list[list[str | Entry]] = []
    for model, label in dict.fromkeys((entry.model, entry.label) for entry in comparisons):
        found = {e.column: e for e in comparisons if (e.model, e.label) == (model, label)}
        seeds = {e.estimate.num_seeds for e in found.values() if e.estimate}
        values = [_difference(found.get(column), digits) for column in TABLE_COLUMNS]
        lines.append([model, label, "/".join(map(str, sorted(seeds))) or MISSING, *values])
    return Table(
        name="comparisons" + group.suffix(),
        title="Paired differences in points",
        subtitle=group.title,
        header=("Model", "Difference", "Seeds", *map(group.head, TABLE_COLUMNS)),
        notes=(_correction(comparisons), *group.notes),
        rows=blocks(lines),
        caption=(
            "Percentage points ± one standard error, paired: the same items, the same seed (which "
            "also chose the same training data); the base model stands against every seed. "
            f"{MISSING}: a side or its per-item records are missing.",
            "p: exact McNemar test for one seed on right/wrong answers, else Student's t of the "
            "items × seeds estimate with Satterthwaite's degrees of freedom. "
            "Differences from a published value are not corrected for their number.",
            "One seed: says something of these trained models on new items, nothing of the methods "
            "on new seeds. From published: unpaired, the published error is the binomial one of "
            "its items alone, as its number of seeds is unknown.",
        ),
        num_text_columns=2,
    )


def _correction(comparisons: Sequence[Comparison]) -> str:
    start = f"* p < {ALPHA} after Holm's correction, per model"
    if any(entry.family == "setting" for entry in comparisons):
        return (
            f"{start}, made apart for the differences between trained methods, for those of a "
            "method's other settings from its own, and for those from the base model."
        )
    return (
        f"{start}: over the differences between trained methods, and apart from them over those "
        "from the base model."
    )


def _difference(entry: Comparison | None, digits: int) -> Entry:
    if entry is None or entry.estimate is None:
        return Entry()
    star = "*" if entry.is_significant else ""
    stderr = entry.estimate.stderr
    error = "" if stderr is None else f"± {percent(stderr, digits)}"
    return Entry(points(entry.estimate.value, digits) + star, error)


def comparison_lists(findings: Findings) -> list[Table]:
    """Comparisons with one row each (interval, p and test), once per group."""
    tables = []
    for group, comparisons in findings.comparisons.items():
        lines = []
        for entry in comparisons:
            found = [MISSING] * 8
            if entry.estimate is not None:
                found = [
                    *(entry.test, points(entry.estimate.value), percent(entry.estimate.stderr)),
                    interval_text(entry.estimate.interval),
                    *(p_text(entry.p_value), p_text(entry.p_holm)),
                    *(str(entry.estimate.num_seeds), str(entry.estimate.num_items)),
                ]
            lines.append([entry.model, entry.label, entry.column, *found])
        tables.append(
            Table(
                name="comparisons-list" + group.suffix(),
                title="Every comparison",
                subtitle=group.title,
                header=(
                    *("Model", "Difference", "Column", "Test"),
                    *("Points", "SE", "95% interval", "p", "p (Holm)", "Seeds", "Items"),
                ),
                rows=blocks(lines, 2),
                num_text_columns=4,
            )
        )
    return tables


def comparison_records(findings: Findings) -> list[dict[str, object]]:
    """Comparisons as tidy records for their CSV."""
    return [
        {
            "protocol": entry.group.protocol,
            "columns_measured": entry.group.title,
            "model": entry.model,
            "left": entry.left,
            "right": entry.right,
            "column": entry.column,
            **estimate_record(entry.estimate, "difference", "points"),
            "p": entry.p_value,
            "p_holm": entry.p_holm,
            "test": entry.test or None,
            "num_seeds": entry.estimate.num_seeds if entry.estimate else None,
            "num_items": entry.estimate.num_items if entry.estimate else None,
        }
        for found in findings.comparisons.values()
        for entry in found
    ]
