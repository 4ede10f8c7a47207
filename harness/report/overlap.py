"""The page's section on test items that the training rows hold."""

from __future__ import annotations

from harness.analysis.findings import Findings
from harness.report.numbers import number
from harness.report.render import Table, blocks, row


def overlap_table(findings: Findings) -> list[Table]:
    """Items, and how many of them are in the rows, by data set and benchmark."""
    lines = [
        [one.data, one.benchmark, *(f"{n:,}" for n in (one.items, one.ngrams, one.questions))]
        for one in findings.data.overlap.lines
    ]
    table = Table(
        name="overlap",
        title="Test items that the training rows hold",
        header=("Data", "Benchmark", "Items", "13 words in a row", "Exact question"),
        rows=blocks(lines),
        caption=(
            "Of all rows of the data set and all items of the benchmark, whatever fractions and "
            "limits are. Words as in Brown et al. (2020), appendix C, and lm-eval: lower case, "
            "punctuation removed. Of an item its question counts; one of fewer than 13 words can "
            "be found whole alone, and one about a picture only in a row with the same picture. "
            "Shared words are no proof that an answer was seen.",
        ),
        num_text_columns=2,
    )
    return [table] if lines else []


def overlap_score_table(findings: Findings) -> list[Table]:
    """Scores with and without the items that were found, where there are any."""
    rows = [
        row(
            *(one.label, one.benchmark, one.metric, f"{one.hits:,} of {one.items:,}"),
            *(number(value, ".4f") for value in (one.all, one.without, one.found)),
        )
        for one in findings.data.overlap.scores
    ]
    table = Table(
        name="overlap-scores",
        title="Scores with and without the items that were found",
        header=("Cell", "Benchmark", "Metric", "Found", "All items", "Without", "Found alone"),
        rows=tuple(rows),
        caption=(
            "Means over the items that were asked, each counted alike: of a group of tasks this is "
            "its mean over items. What is found is found by either rule.",
        ),
        num_text_columns=4,
    )
    return [table] if rows else []


def unknown_sentences(findings: Findings) -> list[str]:
    """The line that says of which benchmarks nothing is known, if of any."""
    if not (unknown := findings.data.overlap.unknown):
        return []
    return [
        f"Not known of {', '.join(unknown)}: it is found as a cell is scored by this version, with "
        "the training rows at hand, and kept in the runs folder."
    ]
