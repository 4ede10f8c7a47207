"""Tables of response flags, and of what the order of the options does."""

from __future__ import annotations

from harness.analysis.findings import Findings
from harness.analysis.responses import FLAGS
from harness.analysis.stats import Estimate
from harness.report.numbers import interval_text, percent, points
from harness.report.render import Table, blocks, row


def flag_tables(findings: Findings) -> list[Table]:
    """Response flags by variant and column, once per group that has any."""
    tables = []
    for group, lines in findings.flags.items():
        rows = [
            [
                *(line.variant.model, findings.measured.row_name(line.variant), line.column),
                *(str(line.num_responses), percent(line.score.value if line.score else None, 1)),
                *(percent(share, 1) for share in line.shares.values()),
            ]
            for line in lines
        ]
        table = Table(
            name="responses" + group.suffix(),
            title="Responses that the score alone does not tell",
            subtitle=group.title,
            header=("Model", "Method", "Column", "Responses", "Score", *FLAGS.values()),
            rows=blocks(rows, 2),
            caption=(
                "Percent of all responses, over the seeds. Names several: more than one option "
                "occurs in the response, which is wrong by the rule, whatever it says. Empty: "
                "nothing was said. Right by similarity alone: no option occurs, and the right one "
                "is the most similar text. Gold stands first: the right option is the first of the "
                "list, where ties of similarity fall.",
            ),
            num_text_columns=3,
        )
        tables += [table] if rows else []
    return tables


def order_table(findings: Findings) -> list[Table]:
    """Scores with options as given and shuffled, where any were shuffled."""
    rows = [
        row(
            *(line.variant.model, findings.measured.row_name(line.variant), line.benchmark),
            *(percent(line.given, 1), percent(line.shuffled, 1), _difference(line.difference)),
        )
        for line in findings.orders
    ]
    table = Table(
        name="position-bias",
        title="What the order of the options does",
        header=("Model", "Method", "Benchmark", "As given", "Shuffled", "Difference"),
        rows=tuple(rows),
        caption=(
            "Percent, and points with a 95% interval, paired by question and seed. As given, the "
            "right option stands first in every question; only that column stands beside "
            "published values.",
        ),
        num_text_columns=3,
    )
    return [table] if rows else []


def _difference(estimate: Estimate | None) -> str:
    if estimate is None or estimate.interval is None:
        return points(estimate.value if estimate else None, 1)
    return f"{points(estimate.value, 1)} ({interval_text(estimate.interval, 1)})"
