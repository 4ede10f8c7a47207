"""The other tables: all scores, how columns were measured, the published values, the anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import TABLE_COLUMNS, Group, is_aggregate, is_missing
from harness.analysis.comparisons import name_of
from harness.analysis.measurements import Measurements, variant_of
from harness.analysis.published import Published
from harness.report.lines import TABLE_1, TABLE_2
from harness.report.numbers import MISSING, percent, points, share_text
from harness.report.render import Table, row
from harness.report.responses import TITLES

if TYPE_CHECKING:
    import pandas as pd


def score_table(scores: pd.DataFrame) -> Table:
    """Returns every benchmark's score of every cell; single subjects are in the CSV alone."""
    rows = []
    previous = None
    notes: dict[str, int] = {}
    for record in scores[is_aggregate(scores)].to_dict("records"):
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
    return Table(
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


def score_records(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Returns the scores for their CSV: what was counted of responses has a column each."""
    records = []
    for record in scores.to_dict("records"):
        counts = record.pop("response_flags", None)
        counts = counts if isinstance(counts, dict) else {}
        records.append(record | {f"responses_{name}": counts.get(name) for name in TITLES})
    return records


def protocol_table(measured: Measurements, group: Group) -> Table:
    """Returns how each column of a group was measured."""
    rows, warnings = [], []
    for column, setting in group.settings.items():
        frame = measured.rows[setting]
        for field in ("precision", "tokenizer_sha256"):
            for model, part in frame.groupby("model", sort=False):
                values = sorted(set(map(str, part[field])))
                if len(values) > 1:
                    warnings.append(
                        f"Warning: {column} of {model} was measured with more than one {field}: "
                        f"{', '.join(value[:12] for value in values)}."
                    )
        rows.append(
            row(
                column,
                setting.benchmark,
                setting.protocol,
                setting.metric,
                ", ".join(sorted(set(map(str, frame["data_source"])))),
                setting.data[:8],
                ", ".join(sorted(set(map(str, frame["precision"])))),
                str(setting.shots),
                "all" if setting.limit is None else str(setting.limit),
                _range(frame["n"]),
                setting.task_version,
                setting.lm_eval_version,
            )
        )
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


def published_tables(
    published: Published, models: Sequence[str], titles: Mapping[str, str]
) -> list[Table]:
    """Returns the paper's rows of these models, whole, with the protocol of each column."""
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


def anchor_table(published: Published, scores: pd.DataFrame) -> Table | None:
    """Returns our base models beside published ones, or None where no model has any."""
    rows = []
    for anchor in published.anchors:
        ours = scores[
            (scores["model"] == anchor.model)
            & (scores["method_name"] == "base")
            & (scores["benchmark"] == anchor.benchmark)
            & (scores["metric"] == anchor.metric)
            & (scores["protocol"] == published.anchor_protocol)
            & (scores["shots"] == published.anchor_shots)
            & scores["limit"].isna()
            & is_aggregate(scores)
        ]
        for record in ours.to_dict("records"):
            rows.append(
                row(
                    *(anchor.model, anchor.benchmark, anchor.metric),
                    *(percent(record["value"], 1), f"{anchor.value:.1f}"),
                    points(record["value"] - anchor.value / 100, 1),
                )
            )
    if not rows:
        return None
    return Table(
        name="anchors",
        title="The untrained base models beside published scores",
        header=("Model", "Benchmark", "Metric", "Ours", "Published", "Difference"),
        rows=tuple(rows),
        caption=(f"Percent, lm-eval, 0-shot, all items. Source: {published.anchor_source}.",),
        num_text_columns=3,
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"
