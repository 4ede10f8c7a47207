"""A judge's verdicts in print: win rates, paired differences, what each question came to.

One table per judge: a judge is a model, what its endpoint calls it, a prompt, and settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.analysis.judgements import JudgedPair, Judgement, MethodJudgement, PairedJudgement
from harness.analysis.win_rates import LengthControlled
from harness.report.captions import Captions
from harness.report.numbers import MISSING, interval_text, p_text, percent, points
from harness.report.page import Section, html, render_page
from harness.report.render import Entry, Row, Table, row

DIGITS = 1
"""Decimals of a percent: the errors are of whole points."""
LONGEST_QUESTION = 90
"""Characters of an instruction in the table of verdicts."""
MOST_AWAY = 0.5
"""That a win rate can be from one half."""
MANY_UNREADABLE = 0.05
"""Share of unreadable verdicts from which on a win rate says little."""
NOT_ALPACA_EVAL = (
    "This is not AlpacaEval's win rate, nor to be compared with it or with one by another judge, "
    "prompt or set of instructions: judge and prompt are those named here, each pair is judged in "
    "both orders, and the length control has the length term alone."
)
WIN_RATE = (
    "Win rate: percent of the questions whose answer the judge prefers to the reference's, ties "
    "half, ± one standard error over questions (sample standard deviation / √n). Of several seeds "
    "the mean of each question comes first."
)
BOTH_ORDERS = (
    "Each pair is judged in both orders: won or lost is what is so in both, and a verdict that "
    "turns with the order is a tie. A pair without a verdict that can be read in both orders is "
    "left out, and counted under Missing; equal answers are a tie, and no judge sees them."
)
LENGTH_CONTROL = (
    "Length-controlled: the win rate that a logistic regression of the preferences on tanh(length "
    "difference / its standard deviation) gives at equal lengths, ± its standard error by the "
    "delta method from the sandwich covariance over questions. Lengths are in characters."
)
EXTRAPOLATES = (
    "*: under 5% of the answers are as long as the reference's or longer (or as short or shorter), "
    "so that equal lengths lie at the edge of what was seen, and the value is an extrapolation."
)
MARKS = {1.0: "+", 0.5: "=", 0.0: "−"}
MARKS_CAPTION = (
    "+ won, − lost, = tie, ≠ the verdict turned with the order (a tie), ≡ equal answers (a tie), "
    "? no verdict that can be read. Of several seeds: the mean, from 0 (lost) to 1 (won)."
)


@dataclass(frozen=True)
class JudgedGrid:
    """What judges made of a grid's answers to one set, against one reference."""

    grid_name: str
    grid_title: str
    set_name: str
    reference: str
    judgements: tuple[Judgement, ...]
    """Of each judge that has seen any of the pairs; the one that was asked now is first."""
    questions: Mapping[str, str]
    """Instructions, with their inputs, by id."""
    prompt: tuple[str, str]
    """What the first judge was asked: as the system, and as the user."""
    prompt_sha256: str = ""
    notes: tuple[str, ...] = ()
    """What a reader must know of the set and of what is missing."""


def win_table(judged: JudgedGrid, judgement: Judgement) -> Table:
    """The win rates by one judge."""
    lines = judgement.methods
    some = any(line.controlled.extrapolates for line in lines)
    whys = {f"{line.method}: {line.controlled.why}" for line in lines if line.controlled.why}
    return Table(
        name="win-rates",
        title=f"Win rates against {judged.reference}",
        subtitle=f"{judged.set_name}, {len(judged.questions)} questions · judge: {judgement.judge}",
        header=(
            *("Model", "Method", "Data", "Seeds", "Win rate", "Length-controlled"),
            *("Won", "Tied", "Lost", "Missing", "Length", "Reference's"),
        ),
        rows=tuple(_rows(lines)),
        caption=(
            NOT_ALPACA_EVAL, WIN_RATE, BOTH_ORDERS, LENGTH_CONTROL, *[EXTRAPOLATES] * some,
            *[f"Without a length-controlled value: {'; '.join(sorted(whys))}."] * bool(whys),
        ),
        notes=(bias_text(judgement), *_missing(judgement), *power_lines(judgement)),
        num_text_columns=3,
    )  # fmt: skip


def _rows(lines: tuple[MethodJudgement, ...]) -> Iterator[Row]:
    model = None
    for line in lines:
        win = line.win
        yield row(
            "" if line.model == model else line.model,
            line.method,
            line.share,
            str(line.num_seeds),
            _percent(win.value, win.stderr),
            _controlled(line.controlled),
            *map(str, (win.num_wins, win.num_ties, win.num_losses, line.num_unjudged)),
            *(f"{length:,.0f}" for length in (line.mean_length, line.mean_reference_length)),
            starts_block=line.model != model,
        )
        model = line.model


def _percent(value: float | None, stderr: float | None) -> Entry:
    error = "" if stderr is None else f"± {percent(stderr, DIGITS)}"
    return Entry(percent(value, DIGITS), error)


def _controlled(found: LengthControlled) -> Entry:
    entry = _percent(found.value, found.stderr)
    return Entry(f"{entry.text}*", entry.error) if found.extrapolates else entry


def bias_text(judgement: Judgement) -> str:
    """The judge's position bias, in one sentence."""
    bias = judgement.bias
    if bias.share is None:
        return "Position bias: unknown, no pair has a verdict in both orders."
    head = f"of {bias.num_pairs:,} pairs with both verdicts"
    if not bias.num_turned:
        return f"Position bias: {head} none turns with the order."
    return (
        f"Position bias: {head} {bias.num_turned:,} "
        f"({percent(bias.share, DIGITS)}%) turn with the order: {bias.num_first:,} for what is "
        f"shown first, {bias.num_second:,} for what is shown second, the rest between a win and a "
        "tie."
    )


def _missing(judgement: Judgement) -> Iterator[str]:
    """Yields what is said of verdicts that are not there."""
    verdicts = 2 * sum(not pair.is_alike for pair in judgement.pairs)
    if judgement.num_unreadable:
        share = judgement.num_unreadable / verdicts
        text = (
            f"Unreadable: {judgement.num_unreadable:,} of {verdicts:,} verdicts "
            f"({percent(share, DIGITS)}%) hold no single [[A]], [[B]] or [[C]]"
        )
        many = ": with so many the win rates say little" if share >= MANY_UNREADABLE else ""
        yield f"{text}{many}."
    if judgement.num_unasked:
        yield f"Not judged yet: {judgement.num_unasked:,} of {verdicts:,} verdicts."


def power_lines(judgement: Judgement) -> Iterator[str]:
    """Yields what so many questions can show."""
    wins = [line.win for line in judgement.methods if line.win.detectable]
    if not wins:
        return
    numbers = sorted({win.num_questions for win in wins})
    given = " to ".join(dict.fromkeys((f"{numbers[0]:,}", f"{numbers[-1]:,}")))
    error = max(win.stderr_at_half or 0.0 for win in wins)
    least = max(win.detectable or 0.0 for win in wins)
    told = (
        f"is told from 50% in 80% of cases where it is {percent(least, DIGITS)} points or more "
        "away; smaller distances say nothing"
        if least < MOST_AWAY
        else "no win rate is told from 50% in 80% of cases: they are too few"
    )
    yield (
        f"What {given} questions can show: with as many ties as here a win rate near 50% has a "
        f"standard error of up to {percent(error, DIGITS)} points, and {told}."
    )


def paired_table(judged: JudgedGrid, judgement: Judgement) -> list[Table]:
    """The paired differences of methods; empty where there is one method."""
    if not judgement.paired:
        return []
    alone = any(one.estimate.scope == "models" for one in judgement.paired)
    about = (
        "Of one common seed the error is over questions and speaks of these trained models alone. "
        if alone
        else ""
    )
    return [
        Table(
            name="paired",
            title=f"Differences of win rates against {judged.reference}, paired by question",
            subtitle=f"{judged.set_name} · judge: {judgement.judge}",
            header=(
                *("Model", "Data", "A", "B", "A − B", "95% interval"),
                *("p", "p, Holm", "Questions", "Seeds"),
            ),
            rows=tuple(map(_paired_row, judgement.paired)),
            caption=(
                "Points ± one standard error. Both stand against the same reference, and only "
                f"questions with verdicts of all seeds of both count. {about}Of several seeds, "
                "seeds and questions are crossed samples (docs/statistics.md). p: of no "
                "difference; Holm's is adjusted over the table.",
            ),
            num_text_columns=4,
        )
    ]


def _paired_row(one: PairedJudgement) -> Row:
    found = one.estimate
    error = "" if found.stderr is None else f"± {percent(found.stderr, DIGITS)}"
    return row(
        one.model,
        one.share,
        one.first,
        one.second,
        Entry(points(found.value, DIGITS), error),
        interval_text(found.interval, DIGITS),
        p_text(found.p_value),
        p_text(one.p_holm),
        str(found.num_items),
        str(found.num_seeds),
    )


def marks_table(judged: JudgedGrid, judgement: Judgement) -> Table:
    """What each question came to, methods across."""
    found: dict[str, dict[str, list[JudgedPair]]] = {}
    models = {pair.model for pair in judgement.pairs}
    for pair in judgement.pairs:
        names = [pair.model] * (len(models) > 1) + [pair.method, pair.share]
        head = " · ".join(filter(None, names))
        found.setdefault(head, {}).setdefault(pair.question, []).append(pair)
    rows = tuple(
        row(f"{name}: {_cut(text)}", *(mark_of(pairs.get(name, ())) for pairs in found.values()))
        for name, text in judged.questions.items()
    )
    return Table(
        name="verdicts",
        title=f"Verdicts against {judged.reference}, question by question",
        subtitle=f"judge: {judgement.judge}",
        header=("Question", *found),
        rows=rows,
        caption=(MARKS_CAPTION,),
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_QUESTION else f"{flat[:LONGEST_QUESTION]}…"


def mark_of(pairs: list[JudgedPair] | tuple[JudgedPair, ...]) -> str:
    """What a method's answers to one question came to; see MARKS_CAPTION."""
    if not pairs:
        return MISSING
    known = [pair.preference for pair in pairs if not math.isnan(pair.preference)]
    if not known:
        return "?"
    if len(pairs) > 1:
        return f"{sum(known) / len(known):.2f}"
    (pair,) = pairs
    if pair.is_alike:
        return "≡"
    outcomes = pair.outcomes
    return "≠" if outcomes and outcomes[0] != outcomes[1] else MARKS[pair.preference]


def judge_page(judged: JudgedGrid, file_names: list[str]) -> str:
    """The page, as HTML."""
    sections, captions = [], Captions([NOT_ALPACA_EVAL])
    for number, judgement in enumerate(judged.judgements):
        tables = [win_table(judged, judgement), *paired_table(judged, judgement)]
        tables = list(map(captions.of_table, tables))
        marks = html("tables", [captions.of_table(marks_table(judged, judgement))])
        body = html("tables", tables) + html("folded", "Question by question", marks)
        sections.append(Section(f"judge-{number}", f"Judge: {judgement.judge}", body))
    system, user = judged.prompt
    asked = html("paragraphs", ["As the system:"]) + html("text", system)
    asked += html("paragraphs", ["As the user, with request and answers filled in:"])
    asked += html("text", user)
    asked += html("paragraphs", [f"SHA-256 of both: {judged.prompt_sha256}"])
    sections += [
        Section("prompt", "What the judge is asked", asked),
        Section("files", "Files beside this page", html("paragraphs", [", ".join(file_names)])),
    ]
    return render_page(
        grid_name=judged.grid_name,
        heading=f"Answers judged against {judged.reference}",
        status=f"{judged.grid_title}: {judged.set_name}, {len(judged.questions)} questions.",
        box="",
        lead=(NOT_ALPACA_EVAL, *judged.notes),
        sections=sections,
        figures_key="",
    )
