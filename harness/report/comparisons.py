"""The tables of paired comparisons: what was tested and what describes, with margins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.analysis.columns import Group, stated_sd
from harness.analysis.comparisons import Comparison, Family
from harness.analysis.findings import Findings
from harness.analysis.layout import listed
from harness.analysis.mixtures import Mixture
from harness.analysis.noise_study import NoiseStudy
from harness.analysis.scales import Scale, scale_of
from harness.analysis.verdicts import ALPHA
from harness.report.noise import BELOW_NOTE, difference_entry
from harness.report.numbers import MISSING, interval_text, p_text, scaled
from harness.report.records import estimate_record, head_record
from harness.report.render import Entry, Table, blocks

ACROSS = "§"
"""Marks a difference between rows of several stacks."""
OF_MODELS = "°"
"""Marks a difference that speaks of two trained models, not of their methods."""
NOT_THE_METHODS = "these two trained models, not the methods"
FROM_PUBLISHED = (
    "From published: unpaired, the published error is the binomial one of its items alone, as its "
    "number of seeds is unknown; such differences are not corrected for their number."
)
FAMILIES: dict[Family, str] = {
    "claim": "the grid's claims, in all models and protocols",
    "compare": "the comparisons that the grid asks for, per model",
    "setting": "the differences of a method's other settings from its own, per model",
    "context": "those from the base model, per model",
}
"""What is corrected together, as a reader is told it."""


def _compared(findings: Findings, is_rest: bool) -> Iterator[tuple[Group, list[Comparison]]]:
    """Comparisons by group, of the tables' columns or of the other benchmarks, where any are."""
    for group, found in findings.comparisons.items():
        if group.is_rest == is_rest and found:
            yield group, found


def _of(group: Group) -> str:
    """Names the columns in a title where they stand in no table of the grid."""
    return f": {listed(group.columns)}" if group.is_rest else ""


def difference_scales(comparisons: Sequence[Comparison], digits: int = 2) -> dict[str, Scale]:
    """How differences are printed, by column."""
    values: dict[str, list[float]] = {}
    for entry in comparisons:
        found = values.setdefault(entry.column, [])
        found += [] if entry.estimate is None else [entry.estimate.value]
    group = comparisons[0].group
    return {column: scale_of(group.unit(column), found, digits) for column, found in values.items()}


def comparison_tables(findings: Findings, digits: int = 2, *, is_rest: bool = False) -> list[Table]:
    """Comparisons with one row per pair and one column per benchmark, once per group."""
    return [_wide(found, group, digits, findings) for group, found in _compared(findings, is_rest)]


def _wide(
    comparisons: Sequence[Comparison], group: Group, digits: int, findings: Findings
) -> Table:
    lines: list[list[str | Entry]] = []
    scales, noise = difference_scales(comparisons, digits), findings.noise
    mixture = findings.mixtures.get(group)
    for model, label in dict.fromkeys((entry.model, entry.label) for entry in comparisons):
        found = {e.column: e for e in comparisons if (e.model, e.label) == (model, label)}
        seeds = {e.estimate.num_seeds for e in found.values() if e.estimate}
        values = [_difference(found.get(c), scales.get(c), noise) for c in group.columns]
        label += _across(next(iter(found.values())), mixture)
        lines.append([model, label, "/".join(map(str, sorted(seeds))) or MISSING, *values])
    no_shares = any(group.unit(column) for column in group.columns)
    return Table(
        name="comparisons" + group.suffix(),
        title=_title("Paired differences" + " in points" * (not no_shares), comparisons, group),
        subtitle=group.title,
        header=("Model", "Difference", "Seeds", *map(group.head, group.columns)),
        notes=(
            *_correction(comparisons),
            *_of_models_notes(comparisons),
            *_stack_notes(mixture),
            *[BELOW_NOTE] * any(map(noise.is_below, comparisons)),
            *group.notes,
        ),
        rows=blocks(lines),
        caption=(
            f"Percentage points{' (of what is no share: its own unit)' * no_shares} ± one standard "
            "error, paired: the same items, the same seed (which "
            "also chose the same training data); the base model stands against every seed. "
            f"{MISSING}: a side or its per-item records are missing.",
            _how_tested(comparisons, findings),
            *[FROM_PUBLISHED] * any(entry.family is None for entry in comparisons),
        ),
        num_text_columns=2,
    )


def _title(text: str, comparisons: Sequence[Comparison], group: Group) -> str:
    """A title, which says so where nothing below it speaks of methods."""
    known = [entry for entry in comparisons if entry.estimate is not None]
    alone = bool(known) and all(entry.is_of_models for entry in known)
    return text + f", {NOT_THE_METHODS}" * alone + _of(group)


def _of_models_notes(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    if not any(entry.is_of_models for entry in comparisons):
        return ()
    return (
        f"{OF_MODELS} {NOT_THE_METHODS[0].upper()}{NOT_THE_METHODS[1:]}: one seed, and nothing is "
        "known of the spread over seeds (no method of this model and column has several, and the "
        "grid states no `seed_sd`). The error is that of new items; it is not tested.",
    )


def _how_tested(comparisons: Sequence[Comparison], findings: Findings) -> str:
    """How the intervals and p values were made, as far as they occur."""
    known = [entry.estimate for entry in comparisons if entry.estimate is not None]
    own = [e for e in known if e.scope == "methods"]
    pooled = [estimate for estimate in own if estimate.basis == "pooled"]
    texts = []
    if own:
        texts.append(
            "p: Student's t of the items × seeds estimate with Satterthwaite's degrees of freedom."
        )
    if pooled:
        text = (
            "The variance over seeds is pooled over all pairs of methods of the model and column "
            "(those against an untrained model apart): moderated variance, Smyth 2004."
        )
        if any(estimate.num_seeds == 1 for estimate in pooled):
            text += " A difference of one seed takes that of the others."
        texts.append(text)
    if any(estimate.basis == "stated" for estimate in own):
        texts.append(_stated(comparisons, findings))
    if any(_is_belied(entry, findings) for entry in comparisons):
        texts.append(
            "Where its own seeds scatter more than the grid's `seed_sd` explains (χ² test, 5%), "
            "they count in its place."
        )
    if any(estimate.seeds_alone for estimate in own):
        texts.append(
            "Of a score that is no mean over its items Student's t knows the seeds alone: it "
            "speaks of these items."
        )
    if any(entry.is_of_models for entry in comparisons):
        texts.append(
            f"p of {NOT_THE_METHODS}: exact McNemar test on right/wrong answers; else of few items "
            "a permutation test (sign flips), of more Student's t over the items."
        )
    return " ".join(texts)


def _stated(comparisons: Sequence[Comparison], findings: Findings) -> str:
    """What the grid states of the seeds, and where it is from."""
    found: dict[str, None] = {}
    for entry in comparisons:
        if entry.estimate is None or entry.estimate.basis != "stated":
            continue
        sd = stated_sd(findings.data.seed_sd, entry.group, entry.column)
        if sd is not None:
            unit = entry.group.unit(entry.column) or "points"
            source = "" if sd.source is None else f" ({sd.source})"
            found[f"{sd.points:g} {unit}{source}"] = None
    return (
        "Where no other comparison tells the variance over seeds it is the grid's `seed_sd`, taken "
        f"as known: a score's SD over re-trainings is {'; '.join(found)}."
    )


def _is_belied(entry: Comparison, findings: Findings) -> bool:
    """Whether a difference's own seeds count, though the grid states their spread."""
    known = entry.estimate
    is_own = known is not None and known.basis == "own" and known.num_seeds > 1
    return is_own and stated_sd(findings.data.seed_sd, entry.group, entry.column) is not None


def _across(entry: Comparison, mixture: Mixture | None) -> str:
    crosses = mixture is not None and mixture.crosses(entry.model, entry.left, entry.right)
    return f" {ACROSS}" if crosses else ""


def _stack_notes(mixture: Mixture | None) -> tuple[str, ...]:
    """What is to be said of differences where the cells are of several stacks."""
    if mixture is None:
        return ()
    return (
        f"{ACROSS} Across stacks: such a difference holds what the stack moved too, of which "
        f"`zbench drift` tells the size. {mixture.head}.",
    )


def _correction(comparisons: Sequence[Comparison]) -> list[str]:
    """What is tested, and what is corrected together."""
    tested = [entry for entry in comparisons if entry.is_tested and not entry.is_of_models]
    columns = list(dict.fromkeys(entry.column for entry in tested))
    if not tested:
        return ["Nothing here is tested: these columns describe, and have no star."]
    families = [text for name, text in FAMILIES.items() if any(e.family == name for e in tested)]
    apart = "separately " if len(families) > 1 else ""
    over = f"{apart}over {' and over '.join(families)}"
    lines = [f"* p < {ALPHA} after Holm's correction {over}."]
    if any(entry.family is not None and not entry.is_tested for entry in comparisons):
        lines.append(
            f"Tested: {listed(columns)} (what a claim names, or else the average of the most "
            "benchmarks, which is not counted beside its parts). All else describes: its p is not "
            "corrected, and has no star."
        )
    return lines


def margin_scale(entry: Comparison) -> Scale:
    """How a comparison's own numbers are printed."""
    values = (entry.estimate.value if entry.estimate else None, entry.margin)
    return scale_of(entry.group.unit(entry.column), values)


def margin_text(entry: Comparison) -> str:
    """A comparison's margin with its unit, such as `±1.5 points`."""
    assert entry.margin is not None
    unit = entry.group.unit(entry.column)
    return f"±{scale_of(unit).factor * entry.margin:g} {unit or 'points'}"


def _difference(entry: Comparison | None, scale: Scale | None, noise: NoiseStudy) -> Entry:
    if entry is None or entry.estimate is None or scale is None:
        return Entry()
    star = "*" if entry.is_significant else ""
    stderr = entry.estimate.stderr
    error = "" if stderr is None else f"± {scaled(stderr, scale)}"
    error += OF_MODELS * entry.is_of_models
    return replace(difference_entry(entry, scale, noise, star), error=error)


def comparison_lists(findings: Findings, *, is_rest: bool = False) -> list[Table]:
    """Comparisons with one row each (interval, p and test), once per group."""
    tables = []
    for group, comparisons in _compared(findings, is_rest):
        scales, lines = difference_scales(comparisons), []
        margins = any(entry.margin is not None for entry in comparisons)
        of_models = any(entry.p_models is not None for entry in comparisons)
        for entry in comparisons:
            scale = scales[entry.column]
            found: list[str | Entry] = [MISSING] * (8 + of_models)
            if entry.estimate is not None:
                found = [
                    entry.test or MISSING,
                    difference_entry(entry, scale, findings.noise),
                    scaled(entry.estimate.stderr, scale),
                    interval_text(entry.estimate.interval, scale=scale),
                    *(p_text(entry.p_value), p_text(entry.p_holm)),
                    *[p_text(entry.p_models)] * of_models,
                    *(str(entry.estimate.num_seeds), str(entry.estimate.num_items)),
                ]
            found += [_margin(entry)] * margins
            label = entry.label + _across(entry, findings.mixtures.get(group))
            lines.append([entry.model, label, group.head(entry.column), *found])
        tables.append(
            Table(
                name="comparisons-list" + group.suffix(),
                title=_title("Every comparison", comparisons, group),
                subtitle=group.title,
                header=(
                    *("Model", "Difference", "Column", "Test"),
                    *("Points", "SE", "95% interval", "p", "p (Holm)"),
                    *["p of these models"] * of_models,
                    *("Seeds", "Items"),
                    *["Margin"] * margins,
                ),
                rows=blocks(lines, 2),
                caption=(
                    f"p (Holm) is {MISSING} where a column describes and is not tested.",
                    *[
                        f"p of these models: {NOT_THE_METHODS}; p is {MISSING} there, and nothing "
                        "is tested."
                    ]
                    * of_models,
                ),
                num_text_columns=4,
            )
        )
    return tables


def _margin(entry: Comparison) -> str:
    if entry.margin is None:
        return ""
    ends = {True: ", within", False: ", not shown within", None: ""}
    return margin_text(entry) + ends[entry.is_within_margin]


def comparison_records(findings: Findings, *, is_rest: bool = False) -> list[dict[str, object]]:
    """Comparisons as tidy records for their CSV."""
    found = [entry for _, entries in _compared(findings, is_rest) for entry in entries]
    margins = any(entry.margin is not None for entry in found)
    return [
        {
            **head_record(entry.group, entry.model),
            "left": entry.left,
            "right": entry.right,
            "column": entry.column,
            **estimate_record(
                entry.estimate, "difference", "points", entry.group.unit(entry.column)
            ),
            "p": entry.p_value,
            "p_holm": entry.p_holm,
            "p_models": entry.p_models,
            "test": entry.test or None,
            "scope": entry.estimate.scope if entry.estimate else None,
            "seed_variance": entry.estimate.basis if entry.estimate else None,
            "df": _finite(entry.estimate.df) if entry.estimate else None,
            "num_seeds": entry.estimate.num_seeds if entry.estimate else None,
            "num_items": entry.estimate.num_items if entry.estimate else None,
            **(_margin_record(entry) if margins else {}),
            **({"is_below_noise": findings.noise.is_below(entry)} if findings.noise.floors else {}),
        }
        for entry in found
    ]


def _finite(value: float) -> float | None:
    """A number of a CSV; nothing where it is infinite."""
    return value if math.isfinite(value) else None


def _margin_record(entry: Comparison) -> dict[str, object]:
    """The margin in points, or in the metric's own unit, and whether the difference is shown to be
    within it."""
    factor = scale_of(entry.group.unit(entry.column)).factor
    margin = None if entry.margin is None else factor * entry.margin
    return {
        "margin": margin,
        "p_margin": entry.p_margin,
        "is_within_margin": entry.is_within_margin,
    }
