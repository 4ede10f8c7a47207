"""Tables of response flags, and of what the order of the options does."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.analysis.responses import FLAGS, FlagLine
from harness.analysis.stats import Estimate
from harness.report.numbers import MISSING, percent, points
from harness.report.render import Table, row


def flag_tables(findings: Findings) -> list[Table]:
    """Response flags by variant and column, once per group that has any."""
    return [_flag_table(lines, group) for group, lines in findings.flags.items() if lines]


def _flag_table(lines: Sequence[FlagLine], group: Group) -> Table:
    rows = []
    previous = None
    for line in lines:
        starts = line.variant != previous
        previous = line.variant
        rows.append(
            row(
                *((line.variant.model, line.name) if starts else ("", "")),
                line.column,
                str(line.num_responses),
                MISSING if line.score is None else percent(line.score.value, 1),
                *(percent(share, 1) for share in line.shares.values()),
                starts_block=starts,
            )
        )
    return Table(
        name="responses" + group.suffix(),
        title="Responses that the score alone does not tell",
        subtitle=group.title,
        header=("Model", "Method", "Column", "Responses", "Score", *FLAGS.values()),
        rows=tuple(rows),
        caption=(
            "Percent of all responses, over the seeds. Names several: more than one option occurs "
            "in the response, which is wrong by the rule, whatever it says. Empty: nothing was "
            "said. Right by similarity alone: no option occurs, and the right one is the most "
            "similar text. Gold stands first: the right option is the first of the list, where "
            "ties of similarity fall.",
        ),
        num_text_columns=3,
    )


def order_table(findings: Findings) -> list[Table]:
    """Scores with options as given and shuffled, where any were shuffled."""
    rows = [
        row(
            *(line.variant.model, line.name, line.benchmark),
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
    if estimate is None:
        return MISSING
    if estimate.interval is None:
        return points(estimate.value, 1)
    low, high = estimate.interval
    return f"{points(estimate.value, 1)} ({points(low, 1)} to {points(high, 1)})"
