"""What a report says in words: what is done, what was found, and what may not be read from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import records_of
from harness.analysis.comparisons import Comparison
from harness.analysis.findings import Findings
from harness.analysis.frames import ReportInput
from harness.analysis.scatter import scattered
from harness.analysis.tuning import Tuning
from harness.analysis.variants import name_of
from harness.data.spec import ODD_ROWS
from harness.report.clusters import cluster_warnings
from harness.report.comparisons import NOT_THE_METHODS, margin_scale
from harness.report.listings import published_names
from harness.report.numbers import interval_text, p_is, signed

if TYPE_CHECKING:
    import pandas as pd


def status_line(data: ReportInput) -> str:
    """How much of the grid is done: `11 of 12 cells done, 1 failed`.

    While a tuning goes on also how many of its trials have ended: what it will choose is no cell
    yet.
    """
    counts = data.cells["status"].value_counts()
    rest = [f"{n} {name}" for name, n in sorted(counts.items()) if name != "done"]
    done = f"{counts.get('done', 0)} of {len(data.cells)} cells done"
    tunings = [one for one in data.tunings if not one.gathered]  # whose trials are cells
    trials = sum(one.num_trials for one in tunings)
    ended = sum(trial.status != "to do" for one in tunings for trial in one.trials)
    tried = [f"{ended} of {trials} trials have ended"] if ended < trials else []
    return ", ".join([done, *rest, *tried])


MOST_HEADLINES = 8
"""Comparisons that the page names first; all stand in their tables."""


def headline_sentences(findings: Findings) -> list[str]:
    """One sentence per comparison that the grid asks for; each names its group where there are
    several. The claims have their verdicts instead."""
    num_groups = sum(not group.is_rest for group in findings.comparisons)
    asked = [entry for entry in findings.headlines if entry.family != "claim"]
    lines = [_headline(entry, num_groups) for entry in asked[:MOST_HEADLINES]]
    if len(asked) > MOST_HEADLINES:
        more = len(asked) - MOST_HEADLINES
        lines.append(f"{more} more comparisons stand in the tables of paired comparisons.")
    return lines


def _headline(entry: Comparison, num_groups: int) -> str:
    estimate, group = entry.estimate, entry.group
    assert estimate is not None
    scale, unit = margin_scale(entry), group.unit(entry.column) or "points"
    interval = estimate.interval
    reach = "" if interval is None else f"95% interval {interval_text(interval, scale=scale)}, "
    seeds = f"{estimate.num_seeds} seed{'s' if estimate.num_seeds > 1 else ''}"
    where = f" ({group.title})" if num_groups > 1 else ""
    winner = {True: f" in favour of {entry.left}", False: f" in favour of {entry.right}", None: ""}
    tested = f"p {p_is(entry.p_holm)} corrected"
    if entry.p_value is None:
        tested = NOT_THE_METHODS if entry.is_of_models else "no test"
    return (
        f"{entry.model}: {entry.label}, {entry.column}{where}: {signed(estimate.value, scale)} "
        f"{unit}{winner[entry.is_left_better]} ({reach}{tested}, {seeds})."
    )


def caution_sentences(findings: Findings) -> list[str]:
    """What may be read from the report and what not."""
    measured, cells = findings.measured, findings.data.cells
    lines = [*_about_seeds(findings), *_about_scatter(findings)]
    num_open = int((cells["status"] != "done").sum())
    if num_open:
        lines.append(
            f"{num_open} of {len(cells)} cells are not done: their rows rest on fewer seeds, or "
            "show dashes. A failed cell may still have given scores before it failed."
        )
    lines += dict.fromkeys(
        f"{entry.model}: {entry.label}, {entry.column}: the grid's claim is not tested, as a side "
        "or its per-item records are missing."
        for entries in findings.comparisons.values()
        for entry in entries
        if entry.family == "claim" and entry.is_tested and entry.estimate is None
    )
    lines += findings.untested
    lines += _in_no_table(findings)
    if findings.not_numbers:
        lines.append(
            "Scores that are no numbers are left out, and show dashes: "
            f"{'; '.join(findings.not_numbers)}."
        )
    lines += _about_rows(cells)
    noted = cells.reindex(columns=["label", "training_note"]).dropna()
    lines += [f"{label}: {note}." for label, note in noted.itertuples(index=False)]
    settings = [setting for group in measured.groups for setting in group.settings.values()]
    known = [measured.benchmarks.get(setting.benchmark) for setting in settings]
    worlds = {entry.world if entry else None for entry in known}
    if worlds == {"demo"}:
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
    lines += [
        f"{', '.join(columns)} ({model}, {group.title}): every row is within two standard errors "
        "of chance, or below it: no row shows that anything was learned there."
        for model, group, columns in findings.at_chance
    ]
    lines += [warning.removeprefix("! ") for warning in cluster_warnings(findings.noise.clusters)]
    shown = [
        name
        for name in published_names(findings)
        if {row.model for row in findings.published.tables[name]} & set(measured.models)
    ]
    if any(name.startswith("table") for name in shown):
        lines.append(
            "The paper's ARC, MMLU and TruthfulQA come from free generation scored by string "
            "matching, not from log-likelihoods: they stand beside columns of the paper protocol "
            "alone. Its number of seeds is unknown, so a difference from it lacks the spread of "
            "its trainings."
        )
    if any(name.startswith("scienceqa") for name in shown):
        lines.append(
            "LLaMA-Adapter's ScienceQA scores are of one training each, as far as is known, and an "
            "answer that its pattern does not find is drawn among the options there; here it is "
            "wrong. Which CLIP, which of its layers and which projection it used is not published."
        )
    lines.append(_about_recipes(findings.data.tunings))
    return lines


def _about_recipes(tunings: Sequence[Tuning]) -> str:
    own = "their own recipes (learning rate, epochs, batch), not at equal cost; see the costs."
    tunings = [one for one in tunings if not one.gathered]
    if not tunings:
        return f"Methods are compared with {own}"
    counts = sorted({one.num_trials for one in tunings})
    each = f"{counts[0]} trials each" if len(counts) == 1 else "unequal numbers of trials"
    return (
        f"Only the rows {', '.join(dict.fromkeys(one.winner for one in tunings))} are tuned, with "
        f"{each}; all others have {own}"
    )


def _in_no_table(findings: Findings) -> list[str]:
    """Methods that are trained on smaller shares alone than those that the tables show."""
    measured = findings.measured
    shown = {(v.model, v.method, v.data) for v in measured.tabled}
    left = (v for v in measured.cells if (v.model, v.method, v.data) not in shown)
    return [
        f"{model}: {name} is not trained on the largest share of its data, and so in no table and "
        "no comparison: see the sample efficiency and all scores."
        for model, name in dict.fromkeys((v.model, name_of(v)) for v in left)
    ]


def _about_rows(cells: pd.DataFrame) -> list[str]:
    """What was left out of each training set, or is odd in it."""
    most: dict[str, dict[str, int]] = {}
    for record in records_of(cells):
        data = record.get("data")
        known = most.setdefault(data if isinstance(data, str) else "", {})
        for name in ODD_ROWS:
            if (count := record.get(f"{name}_rows") or 0) > known.get(name, 0):
                known[name] = int(count)
    said = {
        set_: "; ".join(f"{own[name]:,} {text}" for name, text in ODD_ROWS.items() if name in own)
        for set_, own in most.items()
        if own
    }
    return [f"Training rows{f' of {name}' if name else ''}: {s}." for name, s in said.items()]


def _about_seeds(findings: Findings) -> list[str]:
    seeds = findings.num_seeds
    if seeds is None:
        return []
    entries = [entry for found in findings.comparisons.values() for entry in found]
    bases = {entry.estimate.basis for entry in entries if entry.estimate is not None}
    if seeds[1] == 1:
        return [_about_one_seed("stated" in bases)]
    text = "–".join(dict.fromkeys(map(str, seeds)))
    pooled = ""
    if "pooled" in bases:
        pooled = "the comparisons of one model and column pool what theirs tell (moderated "
        pooled += "variance), and "
    return [
        f"{text} seeds per method. A seed draws the initial values, the order and the subset of "
        f"the data; so few of them tell the spread only roughly: {pooled}the intervals are as wide "
        "as that makes them. An interval that holds 0 is no proof of equality."
    ]


def _about_scatter(findings: Findings) -> list[str]:
    """Methods that a pooled variance over seeds does not fit, by the columns that are tested."""
    entries = (entry for found in findings.comparisons.values() for entry in found)
    return [
        f"{one.model}, {one.column} ({one.group.title}): {name_of(one.variant)} scatters more over "
        f"the seeds than the other methods do (p {p_is(one.p_value)}). Their variance is pooled "
        "all the same: the intervals of its differences are too short, those of others too wide."
        for one in scattered(findings.measured, entries)
    ]


def _about_one_seed(is_stated: bool) -> str:
    if is_stated:
        return (
            "One seed per method: the errors of scores know the items only. The spread over seeds "
            "in the intervals and tests of differences is not measured here: it is the grid's "
            "`seed_sd`, and they hold as far as that does."
        )
    return (
        "One seed per method: errors know the items only, and differences speak of these two "
        "trained models, not of the methods. Whether another seed would give the same order of "
        "methods is not measured, and so nothing is tested; more seeds, or `seed_sd` in the grid, "
        "would change that."
    )
