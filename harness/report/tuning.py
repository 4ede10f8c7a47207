"""The page's section on tuning: what was tried and chosen, what it did to the scores, warnings."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.analysis.findings import Findings
from harness.analysis.scales import scale_of
from harness.analysis.stats import Estimate
from harness.analysis.tuned import (
    TunedLine,
    is_published_recipe,
    tuned_lines,
    tuning_cost,
)
from harness.analysis.tuning import Tuning
from harness.analysis.tuning_curves import NEAR_END, Edge, edges
from harness.grid.method_settings import settings_text, value_text
from harness.grid.tuned_methods import tied_with
from harness.grid.tuning import VALIDATION_LOSS
from harness.report.comparisons import NOT_THE_METHODS, OF_MODELS
from harness.report.numbers import (
    MISSING,
    interval_text,
    number,
    p_text,
    scaled,
    share_text,
    short_seconds,
    signed,
)
from harness.report.records import estimate_record, head_record
from harness.report.render import Entry, Row, Table, blocks, by_group, row

BIASED = (
    "A setting is chosen by its validation score, which is the best of many and so better than "
    "the same setting would give again: it is no result, and stands in no table of scores. These "
    "are of trainings anew with the chosen setting, with seeds and test items that the choice has "
    "not seen."
)


def choice_table(findings: Findings, digits: int = 2) -> list[Table]:
    """What was tried and chosen of each method, and what it took; it has no score."""
    tunings = findings.data.tunings
    if not tunings:
        return []
    losses = {"failed": "Failed", "pruned": "Stopped early"}
    lost = [
        status
        for status in losses
        if any(t.status == status for one in tunings for t in one.trials)
    ]
    costs = [tuning_cost(findings.measured, one) for one in tunings]
    lines = []
    for one, cost in zip(tunings, costs, strict=True):
        times = cost.tuning / cost.training if cost.tuning and cost.training else None
        lines.append(
            [
                *(_place(one), one.method, chosen_text(findings, one)),
                settings_text(one.published) or MISSING,
                f"{sum(trial.status != 'to do' for trial in one.trials)} of {one.num_trials}",
                *(str(sum(trial.status == status for trial in one.trials)) for status in lost),
                *(short_seconds(cost.tuning), short_seconds(cost.training), number(times, ".1f")),
            ]
        )
    devices = sorted({cost.device for cost in costs} - {""})
    on = f" (on {' and '.join(devices)})" if devices else ""
    table = Table(
        name="tuning",
        title="What was tuned, and what was chosen",
        header=(
            *("Model", "Method", "Chosen", "Published recipe", "Trials"),
            *(losses[status] for status in lost),
            *("Tuning", "One training", "Times"),
        ),
        rows=blocks(lines),
        caption=(
            f"{_budget_sentence(tunings)} Tuning: what all trainings of the trials took one "
            f"after the other{on}{_not_counted(tunings)}; times: how many trainings with the "
            "chosen settings that is.",
            *gathered_sentences(tunings),
            *([BIASED] if any(not one.gathered for one in tunings) else []),
        ),
        notes=tuple(edge_sentences(tunings)),
        num_text_columns=4,
    )
    return [table]


def _not_counted(tunings: Sequence[Tuning]) -> str:
    """Which trials' time is not known."""
    lost = [t for one in tunings for t in one.trials if t.status in ("failed", "pruned")]
    unknown = sum(trial.seconds is None for trial in lost)
    return f", but for {unknown} that failed or stopped early" if unknown else ""


def _place(one: Tuning) -> str:
    """A model, and what else tells its tunings apart."""
    data = "" if one.data is None else f" on {one.data}"
    share = "" if one.fraction in (None, 1.0) else f", {share_text(one.fraction)}"
    return f"{one.model}{data}{share}"


def chosen_text(findings: Findings, one: Tuning) -> str:
    """The chosen settings, whether they are the published recipe, and whether others tied."""
    if one.choice is None:
        return "not chosen yet"
    same = " (the published recipe)" if is_published_recipe(findings.measured, one) else ""
    number = tied_with(one.trials, one.chosen)
    tied = f" (tied with {number} other{'s' * (number > 1)})" if number else ""
    return settings_text(one.choice.settings) + same + tied


def _budget_sentence(tunings: Sequence[Tuning]) -> str:
    """What was tuned on, and how equal the number of trials is."""
    numbers = {one.num_trials for one in tunings}
    own = ", ".join(f"{one.method} {one.num_trials}" for one in tunings)
    seeds = sorted({len(trial.values) for one in tunings for trial in one.trials}) or [1]
    count = "–".join(dict.fromkeys(map(str, (seeds[0], seeds[-1]))))
    lost = sum(trial.status in ("failed", "pruned") for one in tunings for trial in one.trials)
    sentences = [
        f"Tuned on: {', '.join(dict.fromkeys(one.on for one in tunings))}.",
        f"Every method had {numbers.pop()} trials."
        if len(numbers) == 1
        else f"The methods had not the same number of trials ({own}): not at equal cost.",
        f"Seeds of a trial: {count}. Sampler: "
        f"{', '.join(dict.fromkeys(one.sampler for one in tunings))}.",
    ]
    if lost:
        sentences.append(
            f"{lost} of the trials failed or were stopped early: they count as trials, and are "
            "never chosen."
        )
    return " ".join(sentences)


def gathered_sentences(tunings: Sequence[Tuning]) -> list[str]:
    """What the tunings are that are gathered from rows of the study, and how they are chosen."""
    gathered = [one for one in tunings if one.gathered]
    if not gathered:
        return []
    rows = "; ".join(dict.fromkeys(f"{one.method}: {', '.join(one.gathered)}" for one in gathered))
    found = [
        f"Gathered by the grid from rows that are one method under several settings ({rows}): each "
        "row has its scores in the tables, and the chosen one is not trained anew."
    ]
    if any(one.on != VALIDATION_LOSS for one in gathered):
        found.append(
            "A row that is chosen by a benchmark of the study itself is chosen on test items: its "
            "score there is biased upwards."
        )
    return found


def edge_sentences(tunings: Sequence[Tuning]) -> list[str]:
    """One line for each chosen number at the edge of what was tried."""
    return [_edge_sentence(one, edge) for one in tunings for edge in edges(one)]


def _edge_sentence(one: Tuning, edge: Edge) -> str:
    low, high = map(value_text, edge.span)
    size = "largest" if edge.is_highest else "smallest"
    where = (
        f"within {NEAR_END:.0%} of the {'upper' if edge.is_highest else 'lower'} end of its range"
        if edge.is_range
        else f"the {size} of its list"
    )
    advice = "" if one.gathered else f": widen `tune.space.{one.method}.{edge.setting}`"
    to = "" if edge.beyond is None or one.gathered else f", such as to {value_text(edge.beyond)}"
    return (
        f"At the edge: {_place(one)}, {one.method}: the chosen {edge.setting} "
        f"{value_text(edge.value)} is {where} ({low} to {high}); a better one may lie beyond"
        f"{advice}{to}."
    )


def tuned_tables(findings: Findings, digits: int = 2) -> list[Table]:
    """The scores at the published recipe beside the tuned ones, by group."""
    found = by_group(tuned_lines(findings.measured, findings.comparisons))
    tables = []
    for group, mine in found.items():
        tables.append(
            Table(
                name="tuned" + group.suffix(),
                title="At the published recipe, and tuned",
                subtitle=group.title,
                header=(
                    *("Model", "Method", "Column"),
                    *("Published recipe", "Tuned", "Difference", "95% interval", "p"),
                ),
                rows=_tuned_rows(mine, digits),
                caption=(
                    "Percent ± one standard error; differences in points, tuned − published "
                    "recipe, paired by item and seed: both are trained on the same rows with the "
                    "same seeds. Intervals and p are those of the paired comparisons, not "
                    "corrected for their number: these differences describe what tuning did.",
                    *_of_models_sentences(mine),
                    *_same_sentences(mine),
                ),
                num_text_columns=3,
            )
        )
    return tables


def _tuned_rows(lines: Sequence[TunedLine], digits: int) -> tuple[Row, ...]:
    """A block for each method, under the name of its model, which stands once."""
    rows, place, method = [], "", ""
    for line in lines:
        own = _place(line.tuning), line.tuning.method
        starts = own != (place, method)
        head = (own[0] * (own[0] != place), own[1] * starts)
        rows.append(row(*head, *_tuned_row(line, digits), starts_block=starts))
        place, method = own
    return tuple(rows)


def _tuned_row(line: TunedLine, digits: int) -> list[str | Entry]:
    both = [line.published, line.tuned]
    scale = scale_of(line.group.unit(line.column), [one.value for one in both if one], digits)
    entries: list[str | Entry] = []
    for one in both:
        error = "" if one is None or one.stderr is None else f"± {scaled(one.stderr, scale)}"
        entries.append(Entry() if one is None else Entry(scaled(one.value, scale), error))
    told = [MISSING] * 3
    if line.is_same:
        told = ["the same", MISSING, MISSING]
    elif line.difference is not None:
        interval = interval_text(line.difference.interval, scale=scale)
        mark = OF_MODELS if line.difference.scope == "models" else ""
        told = [signed(line.difference.value, scale) + mark, interval, p_text(line.p_value)]
    return [line.group.head(line.column), *entries, *told]


def _of_models_sentences(lines: Sequence[TunedLine]) -> list[str]:
    if not any(line.difference and line.difference.scope == "models" for line in lines):
        return []
    return [f"{OF_MODELS} {NOT_THE_METHODS[0].upper()}{NOT_THE_METHODS[1:]}: of one seed."]


def _same_sentences(lines: Sequence[TunedLine]) -> list[str]:
    names = dict.fromkeys(
        f"{_place(line.tuning)}, {line.tuning.method}" for line in lines if line.is_same
    )
    return [f"The winner is the published recipe: {'; '.join(names)}."] if names else []


def trial_records(findings: Findings) -> list[dict[str, object]]:
    """Every trial as a tidy record."""
    return [
        {
            "model": one.model,
            **({} if one.data is None else {"data": one.data}),
            "fraction": one.fraction,
            "method": one.method,
            "trial": trial.number,
            "settings": json.dumps(dict(trial.settings)),
            "validated_on": one.on,
            "lower_is_better": one.lower_is_better,
            "validation_value": trial.value,
            "num_seeds": sum(value is not None for value in trial.values.values()),
            "status": trial.status,
            "is_chosen": trial.number == one.chosen,
            "seconds": trial.seconds,
            "note": trial.note,
        }
        for one in findings.data.tunings
        for trial in one.trials
    ]


def tuned_records(findings: Findings) -> list[dict[str, object]]:
    """The tuned scores beside those of the published recipe as tidy records."""
    return [
        {
            **head_record(line.group, line.tuning.model, line.tuning.data),
            "fraction": line.tuning.fraction,
            "method": line.tuning.method,
            "column": line.column,
            **_named(line, "published_recipe", line.published),
            **_named(line, "tuned", line.tuned),
            **estimate_record(
                line.difference, "difference", "points", line.group.unit(line.column)
            ),
            "p": line.p_value,
            "is_published_recipe": line.is_same,
        }
        for line in tuned_lines(findings.measured, findings.comparisons)
    ]


def _named(line: TunedLine, name: str, estimate: Estimate | None) -> dict[str, object]:
    found = estimate_record(estimate, name, "percent", line.group.unit(line.column))
    return {
        key if key.startswith((name, "unit")) else f"{name}_{key}": v for key, v in found.items()
    }
