"""What is odd about the responses that the paper's protocol scores, and what the order does.

The protocol keeps the published measurement's oddities (docs/paper-protocol.md); they are counted
here, so that a reader can tell how much of a score they make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.columns import Group, is_aggregate, is_missing
from harness.analysis.comparisons import row_name
from harness.analysis.measurements import Measurements, Variant
from harness.analysis.stats import Sample, combine
from harness.report.numbers import MISSING, percent, points
from harness.report.render import Table, row

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "several_named": "Names several",
    "empty": "Empty",
    "ratio_alone": "Right by similarity alone",
    "gold_first": "Gold stands first",
}
"""The counts of a score, with the heads of their columns."""

SHUFFLED = "_shuffled"
"""What the name of a benchmark with shuffled options ends with."""


def response_table(measured: Measurements, group: Group) -> Table | None:
    """Returns the share of odd responses by variant and column; None where none were counted."""
    rows = []
    for model in measured.models:
        variants = measured.table_variants(model)
        for variant in variants:
            previous = ""
            for column, setting in group.settings.items():
                counted = _counts(measured, variant, measured.rows[setting])
                if counted is None:
                    continue
                num_items, counts = counted
                name = row_name(variant, variants)
                score = measured.estimate(variant, group, column)
                rows.append(
                    row(
                        *((model, name) if name != previous else ("", "")),
                        column,
                        str(num_items),
                        MISSING if score is None else percent(score.value, 1),
                        *(percent(counts.get(key, 0) / num_items, 1) for key in TITLES),
                        starts_block=name != previous,
                    )
                )
                previous = name
    if not rows:
        return None
    return Table(
        name="responses" + group.suffix(),
        title="Responses that the score alone does not tell",
        subtitle=group.title,
        header=("Model", "Method", "Column", "Responses", "Score", *TITLES.values()),
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


def _counts(
    measured: Measurements, variant: Variant, frame: pd.DataFrame
) -> tuple[int, dict[str, int]] | None:
    """Returns the number of responses, and of those that are odd in each way, over the seeds."""
    ids = set(measured.cells[variant].values())
    num_items, total = 0, dict.fromkeys(TITLES, 0)
    for record in frame[frame["cell_id"].isin(ids)].to_dict("records"):
        found = record.get("response_flags")
        if not isinstance(found, dict) or not found:
            continue
        num_items += int(record["n"])
        for key in TITLES:
            total[key] += int(found.get(key, 0))
    return (num_items, total) if num_items else None


def position_table(measured: Measurements) -> Table | None:
    """Returns the scores with options as given and shuffled; None where nothing was shuffled.

    The difference is paired by question and seed.
    """
    rows = []
    for name in measured.benchmarks:
        if not name.endswith(SHUFFLED):
            continue
        given, shuffled = _by_cell(measured, name.removesuffix(SHUFFLED)), _by_cell(measured, name)
        for model in measured.models:
            variants = measured.table_variants(model)
            for variant in variants:
                cells = measured.cells[variant].values()
                pairs = [(given[c], shuffled[c]) for c in cells if c in given and c in shuffled]
                if not pairs:
                    continue
                first, second = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
                rows.append(
                    row(
                        *(model, row_name(variant, variants)),
                        measured.benchmarks[name].title,
                        *(percent(first, 1), percent(second, 1)),
                        _difference(measured, variant, name),
                    )
                )
    if not rows:
        return None
    return Table(
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


def _by_cell(measured: Measurements, benchmark: str) -> dict[str, float]:
    scores = measured.data.scores
    metric = measured.benchmarks[benchmark].primary_metric
    mine = scores[
        (scores["benchmark"] == benchmark) & (scores["metric"] == metric) & is_aggregate(scores)
    ]
    return {
        record["cell_id"]: float(record["value"])
        for record in mine.to_dict("records")
        if not is_missing(record["value"])
    }


def _difference(measured: Measurements, variant: Variant, shuffled: str) -> str:
    """As given minus shuffled, in points, with its interval where the records are at hand."""
    import numpy as np

    given, metric = shuffled.removesuffix(SHUFFLED), measured.benchmarks[shuffled].primary_metric
    tables = []
    for cell_id in measured.cells[variant].values():
        frames = [measured.data.items(cell_id, name) for name in (given, shuffled)]
        if any(frame is None for frame in frames):
            continue
        # The tasks have the same questions in the same order, under different names.
        first, second = (frame.set_index("doc_id")[metric] for frame in frames if frame is not None)
        if len(first) == len(second):
            tables.append((first - second).to_numpy(dtype=float))
    if not tables or len({len(table) for table in tables}) > 1:
        return MISSING
    items = np.stack(tables)
    estimate = combine([Sample(items.mean(axis=1), items, None, items.shape[1])])
    if estimate.interval is None:
        return points(estimate.value, 1)
    low, high = estimate.interval
    return f"{points(estimate.value, 1)} ({points(low, 1)} to {points(high, 1)})"
