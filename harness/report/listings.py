"""The other tables: all scores, how columns were measured, the published values, the anchors."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import TABLE_COLUMNS, Group, Protocol, is_missing
from harness.analysis.comparisons import name_of
from harness.analysis.findings import Findings
from harness.analysis.measurements import variant_of
from harness.analysis.paper_tables import TABLE_1, TABLE_2
from harness.analysis.responses import FLAGS
from harness.report.numbers import MISSING, percent, points, share_text
from harness.report.render import Table, row


def score_table(findings: Findings) -> list[Table]:
    """Every benchmark's score of every cell; single subjects are in the CSV alone."""
    rows = []
    previous = None
    notes: dict[str, int] = {}
    for record in findings.scores.to_dict("records"):
        note = record["note"]
        mark = "" if is_missing(note) else str(notes.setdefault(str(note), len(notes) + 1))
        variant, seed = variant_of(record), record["seed"]
        head = (
            variant.model,
            name_of(variant),
            share_text(variant.fraction),
            "" if is_missing(seed) else str(int(seed)),
        )
        rows.append(
            row(
                *(head if head != previous else ("", "", "", "")),
                str(record["protocol"]),
                str(record["benchmark"]),
                str(record["metric"]),
                percent(record["value"]),
                MISSING if is_missing(record["stderr"]) else percent(record["stderr"]),
                str(int(record["n"])),
                str(int(record["shots"])),
                "" if is_missing(record["limit"]) else str(int(record["limit"])),
                mark,
                starts_block=head != previous,
            )
        )
        previous = head
    table = Table(
        name="scores",
        title="All scores",
        header=(
            *("Model", "Method", "Data", "Seed", "Protocol", "Benchmark", "Metric"),
            *("Percent", "SE", "Items", "Shots", "Limit", "Note"),
        ),
        rows=tuple(rows),
        caption=(
            "One line per cell, benchmark and metric; SE: standard error over the items of that "
            "cell. scores.csv holds the single subjects and the identity of every evaluation too.",
        ),
        notes=tuple(f"Note {number}: {note}." for note, number in notes.items()),
        num_text_columns=7,
    )
    return [table]


def score_records(findings: Findings) -> list[dict[str, object]]:
    """Scores for their CSV, with a column for each response flag."""
    records = []
    for record in findings.data.scores.to_dict("records"):
        counts = record.pop("pathologies", None)
        counts = counts if isinstance(counts, dict) else {}
        records.append(record | {f"responses_{name}": counts.get(name) for name in FLAGS})
    return records


def protocol_tables(findings: Findings) -> list[Table]:
    """How each column was measured, once per group."""
    return [_protocol_table(group, columns) for group, columns in findings.protocols.items()]


def _protocol_table(group: Group, columns: Sequence[Protocol]) -> Table:
    rows = [
        row(
            *(found.column, found.setting.benchmark, found.setting.protocol, found.setting.metric),
            ", ".join(found.sources),
            found.setting.data[:8],
            ", ".join(found.precisions),
            str(found.setting.shots),
            "all" if found.setting.limit is None else str(found.setting.limit),
            "–".join(map(str, sorted(set(found.num_items)))),
            found.setting.task_version,
            found.setting.lm_eval_version,
        )
        for found in columns
    ]
    warnings = [
        f"Warning: {found.column} of {model} was measured with more than one {field}: "
        f"{', '.join(value[:12] for value in values)}."
        for found in columns
        for model, field, values in found.mixed
    ]
    return Table(
        name="protocol" + group.suffix(),
        title="How each column was measured",
        subtitle=group.title,
        header=(
            *("Column", "Benchmark", "Protocol", "Metric", "Items from", "Identity", "Precision"),
            *("Shots", "Limit", "Items", "Version", "lm-eval"),
        ),
        rows=tuple(rows),
        notes=(*group.notes, *warnings),
        num_text_columns=7,
    )


def published_tables(findings: Findings) -> list[Table]:
    """The paper's rows of the grid's models, whole, with the protocol of each column."""
    published, models = findings.published, findings.measured.models
    titles = {variant.method_name: variant.title for variant in findings.measured.cells}
    tables = []
    for paper in (TABLE_1, TABLE_2):
        rows = [
            row(
                *(entry.model, titles.get(entry.method, entry.method), entry.params or MISSING),
                *(f"{entry.values[column]:.2f}" for column in TABLE_COLUMNS),
            )
            for entry in published.tables[paper.name]
            if entry.model in models
        ]
        if rows:
            tables.append(
                Table(
                    name=f"published-{paper.name}",
                    title=f"As published: {paper.title}",
                    header=("Model", "Method", "Params", *TABLE_COLUMNS),
                    rows=tuple(rows),
                    caption=(
                        f"{published.source}. ARC, MMLU and TruthfulQA: free generation scored by "
                        "string matching (paper protocol); HellaSwag: lm-eval, 10-shot, acc_norm. "
                        "Comparable with the columns of that protocol alone.",
                    ),
                    num_text_columns=2,
                )
            )
    return tables


def anchor_table(findings: Findings) -> list[Table]:
    """Our base models beside published ones, where a model has any."""
    rows = [
        row(
            *(anchor.model, anchor.benchmark, anchor.metric),
            *(percent(ours, 1), f"{anchor.value:.1f}", points(ours - anchor.value / 100, 1)),
        )
        for anchor, ours in findings.anchors
    ]
    source = findings.published.anchor_source
    table = Table(
        name="anchors",
        title="The untrained base models beside published scores",
        header=("Model", "Benchmark", "Metric", "Ours", "Published", "Difference"),
        rows=tuple(rows),
        caption=(f"Percent, lm-eval, 0-shot, all items. Source: {source}.",),
        num_text_columns=3,
    )
    return [table] if rows else []
