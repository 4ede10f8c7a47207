"""The verdicts of a log on a contest's pairs, by judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.judgements import UNASKED, UNREADABLE, JudgedPair
from harness.answers.contest import Contest, Contestant
from harness.answers.judging import Pair
from harness.answers.store import Entry, InstructionSet
from harness.answers.verdicts import Judge, VerdictLog


@dataclass(frozen=True)
class Meeting:
    """A contestant's answer to one instruction beside the reference's."""

    contestant: Contestant
    entry: Entry
    pair: Pair


def meetings_of(contest: Contest, instructions: InstructionSet) -> list[Meeting]:
    """All that is compared: of each contestant the instructions that both have answered."""
    return [
        Meeting(one, entry, Pair(entry.text, one.answers[entry.id], one.reference[entry.id]))
        for one in contest.contestants
        for entry in instructions.entries
        if entry.id in one.answers and entry.id in one.reference
    ]


def judges_of(meetings: Sequence[Meeting], log: VerdictLog) -> list[Judge]:
    """Who has judged any of it, in the order of the log."""
    shown = {one.identity for meeting in meetings for one in meeting.pair.showings}
    known = {judge for name in shown for judge in log.of(name)}
    return [judge for judge in log.judges if judge in known]


def judged_pairs(meetings: Sequence[Meeting], log: VerdictLog, judge: Judge) -> list[JudgedPair]:
    """What one judge made of each pair."""
    found = []
    for meeting in meetings:
        cell, contestant = meeting.contestant.cell, meeting.contestant
        verdicts = [log.of(one.identity).get(judge) for one in meeting.pair.showings]
        first, second = (UNASKED if v is None else v.choice or UNREADABLE for v in verdicts)
        found.append(
            JudgedPair(
                model=cell.model_name,
                method=cell.method_label,
                share=contestant.share,
                cell_id=cell.id,
                label=cell.label,
                seed=contestant.seed,
                question=meeting.entry.id,
                answer_length=len(meeting.pair.answer),
                reference_length=len(meeting.pair.reference),
                choices=(first, second),
                is_alike=meeting.pair.is_alike,
            )
        )
    return found


def cut_lines(meetings: Sequence[Meeting], log: VerdictLog, judge: Judge) -> list[str]:
    """The line that says how many verdicts cannot be read since the judge was cut, if any are."""
    shown = {one.identity for meeting in meetings for one in meeting.pair.showings}
    verdicts = [found for name in shown if (found := log.of(name).get(judge)) is not None]
    cut = sum(one.choice is None and one.finish_reason == "length" for one in verdicts)
    if not cut:
        return []
    return [
        f"{cut:,} of {len(verdicts):,} verdicts were cut before the judge came to it ("
        f"{judge.settings}); a judge that thinks at length needs a larger --judge-max-tokens"
    ]


def verdict_records(
    meetings: Sequence[Meeting], log: VerdictLog, judges: Sequence[Judge], reference: str
) -> Iterator[dict[str, object]]:
    """Yields a record per judge, pair and order that was judged."""
    for judge in judges:
        pairs = judged_pairs(meetings, log, judge)
        for meeting, pair in zip(meetings, pairs, strict=True):
            partner = meeting.contestant.partner
            for order, showing in zip(("answer", "reference"), meeting.pair.showings, strict=True):
                if (verdict := log.of(showing.identity).get(judge)) is None:
                    continue
                yield {
                    "judge_model": judge.model,
                    "judge_reported": judge.reported,
                    "prompt_sha256": judge.prompt_sha256,
                    "settings": judge.settings,
                    "id": meeting.entry.id,
                    "cell_id": pair.cell_id,
                    "label": pair.label,
                    "model": pair.model,
                    "method": pair.method,
                    "data": pair.share,
                    "seed": pair.seed,
                    "reference": reference,
                    "reference_cell_id": None if partner is None else partner.id,
                    "shown_first": order,
                    "choice": verdict.choice,
                    "preference": pair.preference,
                    "answer_length": pair.answer_length,
                    "reference_length": pair.reference_length,
                    "finish_reason": verdict.finish_reason,
                    "made_at": verdict.made_at,
                    "prompt_tokens": verdict.prompt_tokens,
                    "completion_tokens": verdict.completion_tokens,
                    "text": verdict.text,
                }
