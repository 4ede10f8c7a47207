"""Published runs beside measured ones: the table, what their items can tell, and the figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.analysis.findings import Findings
from harness.analysis.pareto import Front
from harness.analysis.peft_suite import ranks_told_apart
from harness.analysis.published_runs import PublishedRuns, RunLine, run_fronts, told_different
from harness.analysis.scales import Scale
from harness.report.figures import Drawing
from harness.report.numbers import (
    number,
    percent,
    points,
    short_count,
    short_seconds,
    signed,
)
from harness.report.pareto import front_drawing
from harness.report.render import Entry, Table, row

GIB = 2**-30
NATS = Scale(1, 3)


def run_table(findings: Findings) -> list[Table]:
    """Every published run with what was measured of it, by the published accuracy."""
    runs = findings.published_runs
    if runs is None:
        return []
    table = Table(
        name="published-runs",
        title="Published runs, and the same configurations measured here",
        subtitle=f"{runs.table.source}; {runs.table.software}",
        header=(
            *("Rank", "Method", "Published", "Measured", "Difference"),
            *("Forgetting, published", "Forgetting, measured", "Parameters"),
            *("Memory, published", "Memory, measured", "Time, published", "Time, measured"),
        ),
        rows=tuple(row(*_line(line, runs)) for line in runs.lines),
        caption=tuple(run_sentences(runs)),
        num_text_columns=2,
    )
    return [table]


def _line(line: RunLine, runs: PublishedRuns) -> list[str | Entry]:
    published, ours = line.row, line.measured
    error = f"± {percent(published.stderr(runs.table.num_items), 1)}"
    measured = Entry() if line.is_planned else Entry("not run")
    if ours is not None:
        own = "" if ours.stderr is None else f"± {percent(ours.stderr, 1)}"
        measured = Entry(percent(ours.value, 1), own)
    spread = "" if line.stderr is None else f"± {percent(line.stderr, 1)}"
    difference = Entry(
        points(line.difference, 1), spread if ours else "", bold=bool(line.is_different)
    )
    return [
        *(str(line.rank), published.label, Entry(percent(published.accuracy, 1), error)),
        *(measured, difference, signed(published.forgetting, NATS)),
        signed(line.forgetting, NATS),
        short_count(published.trained_parameters),
        number(published.peak_memory_bytes, ".1f", GIB),
        number(line.memory_bytes, ".1f", GIB),
        *(short_seconds(published.step_seconds), short_seconds(line.seconds)),
    ]


def run_sentences(runs: PublishedRuns) -> Iterator[str]:
    """What the table's numbers are, and what they can tell."""
    apart = ranks_told_apart([line.row for line in runs.lines], runs.table.num_items)
    ranks = f": ranks {', '.join(map(str, apart))} from the next" if apart else ""
    yield (
        f"Published: percent of {runs.table.num_items:,} items, ± one binomial standard error; one "
        f"seed each. Of the {len(runs.lines) - 1} pairs of neighbours in the published ranking "
        f"their items alone tell {len(apart)} apart{ranks} (Fisher's exact test, unpaired, each at "
        "5%), and nothing is known of seeds."
    )
    yield (
        "Difference: measured − published in points, ± its standard error of the items of both, "
        "taken as independent, and of `seed_sd` where the grid states it; bold beyond 1.96 of it, "
        "not corrected for their number."
    )
    if runs.other is not None:
        yield f"Measured and published are not compared: {runs.other}."
    elif runs.column is not None:
        different, known = told_different(runs)
        yield f"{different} of {known} measured runs differ from the published ones beyond that."
    yield (
        "Forgetting, published: nats per token of 100 wikipedia articles; measured: bits per byte "
        "of the grid's own text, which is another: values cannot be compared. "
        f"Time of the optimizer steps: published on {runs.table.hardware}, measured where this "
        "grid ran. Memory in GiB: published as reserved in training and scoring, measured as "
        "allocated in training. Not run: see the notes."
    )


def run_records(findings: Findings) -> list[dict[str, object]]:
    """The lines as tidy records."""
    runs = findings.published_runs
    if runs is None:
        return []
    return [
        {
            "rank": line.rank,
            "method": line.row.label,
            "experiment": line.row.experiment,
            "published_percent": 100 * line.row.accuracy,
            "published_stderr_percent": 100 * line.row.stderr(runs.table.num_items),
            "measured_percent": None if line.measured is None else 100 * line.measured.value,
            "difference_points": None if line.difference is None else 100 * line.difference,
            "difference_stderr_points": None if line.stderr is None else 100 * line.stderr,
            "is_different": line.is_different,
            "published_validation_percent": 100 * line.row.validation_accuracy,
            "published_forgetting_nats_per_token": line.row.forgetting,
            "measured_forgetting_bits_per_byte": line.forgetting,
            "trained_parameters": line.row.trained_parameters,
            "published_peak_memory_bytes": line.row.peak_memory_bytes,
            "measured_peak_memory_bytes": line.memory_bytes,
            "published_train_seconds": line.row.step_seconds,
            "measured_train_seconds": line.seconds,
            "is_in_grid": line.is_planned,
        }
        for line in runs.lines
    ]


def run_drawing(findings: Findings) -> Drawing | None:
    """The published accuracies against what they cost, with crosses of their errors."""
    runs = findings.published_runs
    if runs is None:
        return None
    return front_drawing(
        "runs-published",
        "Published runs: accuracy against parameters, memory and forgetting",
        f"{runs.table.source}. Vertical bars: 95% of the {runs.table.num_items:,} items, by the "
        "binomial error; nothing is known of seeds. On the front: no other is at most as costly "
        "and at least as good. Dominated: another one is at most as costly and better beyond the "
        "noise of the items alone, unpaired; with the spread of seeds fewer would be. Those on the "
        "front are named, all stand in the table.",
        [_front_named(front) for front in run_fronts(runs)],
    )


def _front_named(front: Front) -> Front:
    """The front with the names of its own points alone: 63 names would cover them."""
    points = tuple(
        point if place == "front" else replace(point, label="")
        for point, place in zip(front.points, front.places, strict=True)
    )
    return replace(front, points=points)
