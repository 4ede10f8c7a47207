"""What a report says in words: what is done, what was found, and what may not be read from it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.columns import COLUMNS, Group
from harness.analysis.comparisons import Comparison
from harness.analysis.inputs import ReportInput
from harness.analysis.measurements import BASE, Measurements
from harness.analysis.published import Published
from harness.report.numbers import p_text, points


def status_line(data: ReportInput) -> str:
    """Returns how much of the grid is done: `11 of 12 cells done, 1 failed`."""
    counts = data.cells["status"].value_counts()
    rest = [f"{n} {name}" for name, n in sorted(counts.items()) if name != "done"]
    done = f"{counts.get('done', 0)} of {len(data.cells)} cells done"
    return ", ".join([done, *rest])


def findings(comparisons: Sequence[Comparison], *, has_groups: bool) -> tuple[str, ...]:
    """Returns one sentence per claim of the paper, on the Average or else on ARC avg.

    Args:
        comparisons: of all groups.
        has_groups: whether there is more than one group, so that each must be named.
    """
    lines = []
    claims = [entry for entry in comparisons if entry.is_claim]
    for key in dict.fromkeys((entry.group, entry.model, entry.label) for entry in claims):
        found = {e.column: e for e in claims if (e.group, e.model, e.label) == key}
        shown = [found[c] for c in ("Average", "ARC avg") if c in found and found[c].estimate]
        if not shown:
            continue
        entry = shown[0]
        estimate = entry.estimate
        assert estimate is not None
        interval = estimate.interval
        reach = ""
        if interval is not None:
            reach = f"95% interval {points(interval[0])} to {points(interval[1])}, "
        seeds = f"{estimate.num_seeds} seed{'s' if estimate.num_seeds > 1 else ''}"
        p = p_text(entry.p_value)
        where = f" ({entry.group.title})" if has_groups else ""
        lines.append(
            f"{entry.model}: {entry.label}, {entry.column}{where}: "
            f"{points(estimate.value)} points ({reach}p {p if p[0] in '<–' else '= ' + p} before "
            f"correction, {seeds})."
        )
    return tuple(lines)


def cautions(measured: Measurements, published: Published) -> list[str]:
    """Returns what may be read from the report and what not, as far as its own data tell."""
    lines = [*_about_seeds(measured), *_about_cells(measured), *_about_trainings(measured)]
    settings = {s for group in measured.groups for s in group.settings.values()}
    if settings and all(measured.benchmarks[s.benchmark].world == "demo" for s in settings):
        lines.append(
            "The benchmarks are those of one small invented world that ships with the package; "
            "the columns carry the names of what they stand for. They show the pipeline and the "
            "methods at work, and say nothing of ARC, MMLU, HellaSwag, TruthfulQA or of LLaMA."
        )
    if any(setting.limit is not None for setting in settings):
        lines.append(
            "Scores with a limit are of the first items of each task only: not the benchmarks', "
            "and not comparable with anybody's full scores."
        )
    lines += _at_chance(measured)
    if published.models() & set(measured.models):
        lines.append(
            "The paper's ARC, MMLU and TruthfulQA come from free generation scored by string "
            "matching, not from log-likelihoods: they stand beside columns of the paper protocol "
            "alone. Its number of seeds is unknown, so a difference from it lacks the spread of "
            "its trainings."
        )
    lines.append(
        "Methods are compared with their own recipes (learning rate, epochs, batch), not "
        "at equal cost; see the costs."
    )
    return lines


def _about_seeds(measured: Measurements) -> list[str]:
    counts = {
        len(measured.seed_scores(variant, group, column))
        for group in measured.groups
        for column in group.settings
        for model in measured.models
        for variant in measured.table_variants(model)
        if variant.method_name != BASE
    } - {0}
    if not counts:
        return []
    if max(counts) == 1:
        return [
            "One seed per method: errors and tests know the items only. Whether another seed would "
            "give the same order of methods is not measured."
        ]
    text = f"{min(counts)}–{max(counts)}" if len(counts) > 1 else str(max(counts))
    return [
        f"{text} seeds per method. A seed draws the initial values, the order and the subset of "
        "the data; so few of them tell the spread only roughly, and the intervals are as wide as "
        "that makes them. An interval that holds 0 is no proof of equality."
    ]


def _about_cells(measured: Measurements) -> list[str]:
    cells = measured.data.cells
    open_cells = int((cells["status"] != "done").sum())
    if not open_cells:
        return []
    return [
        f"{open_cells} of {len(cells)} cells are not done: their rows rest on fewer seeds, or show "
        "dashes. A failed cell may still have given scores before it failed."
    ]


def _about_trainings(measured: Measurements) -> list[str]:
    """Returns what is to be known of single trainings, such as a loss that exploded."""
    cells = measured.data.cells
    if "training_note" not in cells:
        return []
    noted = cells[cells["training_note"].notna()]
    return [f"{cell['label']}: {cell['training_note']}." for cell in noted.to_dict("records")]


def _at_chance(measured: Measurements) -> list[str]:
    lines = []
    for group in measured.groups:
        for model in measured.models:
            columns = [c for c in COLUMNS if _is_at_chance(measured, group, model, c)]
            if columns:
                lines.append(
                    f"{', '.join(columns)} ({model}, {group.title}): every row is within two "
                    "standard errors of chance, or below it: no row shows that anything was "
                    "learned there."
                )
    return lines


def _is_at_chance(measured: Measurements, group: Group, model: str, column: str) -> bool:
    setting = group.settings.get(column)
    chance = measured.benchmarks[setting.benchmark].chance if setting else None
    found = [measured.estimate(v, group, column) for v in measured.table_variants(model)]
    estimates = [estimate for estimate in found if estimate is not None]
    if chance is None or not estimates:
        return False
    return all(
        estimate.stderr is not None and estimate.value - chance <= 2 * estimate.stderr
        for estimate in estimates
    )
