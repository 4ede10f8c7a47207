"""The sentences below the tables: what a number is, how its error was made, what a dash means."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.analysis.measurements import Measurements
from harness.analysis.paper_tables import Line, PaperTable
from harness.report.numbers import MISSING

NO_ITEMS = "†"
"""Marks a standard error that was made without per-item records."""

STDERR = (
    "The standard error takes items and seeds as crossed random samples: with A the score of one "
    "seed, S² its variance over the k seeds, and MS the mean squares of each benchmark's seeds × n "
    "items table, it is the root of max(S²/k, Σ w² MS(rest)/(k·n)) + Σ w² max(0, MS(items) − "
    "MS(rest))/(k·n); of one seed: Σ w² var(items)/n, which knows nothing of other seeds. w is a "
    "benchmark's weight in an average."
)


def table_caption(findings: Findings, group: Group, paper: PaperTable) -> tuple[str, ...]:
    """Sentences below a paper's table."""
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
    largest = {m: max(measured.fractions(m), default=None) for m in measured.models}
    shares = {f"{100 * f:g}%" for f in largest.values() if f is not None}
    if len(shares) == 1:
        return f"Trained on {shares.pop()} of the training data."
    each = ", ".join(f"{m} {100 * f:g}%" for m, f in largest.items() if f is not None)
    return f"Trained on a share of the training data: {each}." if each else ""


def table_notes(lines: Sequence[Line], group: Group) -> tuple[str, ...]:
    """What must be said below a table everywhere: deviations, and bounds for errors."""
    estimates = [estimate for line in lines for estimate in line.estimates.values() if estimate]
    if any(estimate.stderr is not None and not estimate.from_items for estimate in estimates):
        bound = (
            f"{NO_ITEMS} Without the per-item records of every seed: the root of S²/k + Σ w² "
            "mean(item variance), an upper bound."
        )
        return (*group.notes, bound)
    return group.notes
