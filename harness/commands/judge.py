"""`zbench judge`: what is to be judged, the asking, and what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.frames import NOISE, cell_identity, rows_of
from harness.analysis.judgements import judgement_of
from harness.answers.cells import cells_to_ask, kept_answers
from harness.answers.contest import (
    Answers,
    Contest,
    Reference,
    find_contest,
    find_reference,
    generate_command,
)
from harness.answers.endpoint import Endpoint, key_of
from harness.answers.instructions import read_set
from harness.answers.judge_prompt import judge_prompt
from harness.answers.judged import Meeting, cut_lines, judged_pairs, meetings_of
from harness.answers.judging import Asker, Showing, ask, judge_of, missing_showings, tokens_of
from harness.answers.prompts import PromptForm
from harness.answers.store import (
    GREEDY,
    InstructionSet,
    set_folder,
)
from harness.answers.verdicts import Judge, VerdictLog
from harness.commands.display import console, print_json, print_line, print_warnings
from harness.commands.judge_files import judges_in_order, print_judged, write_judged
from harness.commands.judge_progress import verdict_progress
from harness.errors import UsageError, ZbenchError, shortened
from harness.evaluation.benchmarks import Decoding
from harness.grid.names import slug_of
from harness.grid.schema import Cell
from harness.grid.selection import select_cells
from harness.grid.workspace import OpenGrid
from harness.report.judging import JudgedGrid
from harness.report.judging_records import judge_record

if TYPE_CHECKING:
    from rich.console import Console

JUDGE_FOLDER = "judge"
"""Inside the folder of a set's answers: one folder for each reference."""


@dataclass(frozen=True)
class JudgeOptions:
    """What the command line says of judge and answers."""

    against: str
    model: str
    url: str | None
    max_tokens: int | None
    """That the judge may write for a verdict; None for the prompt's own."""
    instructions: str | None
    """The set, and below how its answers were generated: as `generate` takes them."""
    seeds_root: Path | None
    decoding: Decoding
    only: str | None
    parallel: int
    yes: bool
    dry_run: bool


@dataclass(frozen=True)
class Judging:
    """What is to be judged, and what is left of it."""

    instructions: InstructionSet
    decoding: Decoding
    reference: Reference
    meetings: tuple[Meeting, ...]
    missing: tuple[Showing, ...]
    notes: tuple[str, ...]
    judge: Judge | None
    """Whose verdicts count so far."""


def judge_command(
    grid: OpenGrid, options: JudgeOptions, *, reports_dir: Path, as_json: bool
) -> int:
    """Has what is left judged, and writes what is known then.

    Returns:
        1 where the asking broke off, else 0.
    """
    screen = console(quiet=as_json)
    prompt = judge_prompt()
    most = options.max_tokens or prompt.max_tokens
    asker = Asker(options.model, replace(prompt, max_tokens=most))
    endpoint = _endpoint(options, screen)
    log = VerdictLog(grid.runs_dir)
    judging = _judging(grid, options, asker, log)
    print_warnings(screen, [*grid.notices, *judging.notes])
    plan = _plan_record(judging, asker)
    _print_plan(screen, judging, asker, plan)
    if options.dry_run:
        if as_json:
            print_json(plan)
        return 0
    fault, told = None, list[str]()
    if judging.missing:
        if endpoint is None:
            raise UsageError(f"--judge-url: {len(judging.missing):,} requests are left; give it")
        if not _is_confirmed(options, screen, len(judging.missing)):
            print_line(screen, "nothing was sent")
            return 0
        try:
            told += _ask(judging.missing, endpoint, asker, log, options.parallel, screen)
        except ZbenchError as broken:  # what is judged is kept, and told below
            fault = broken
    if fault is not None and asker.current(log) is None:
        raise fault
    judge = (asker.current(log) if judging.missing else judging.judge) or asker.judge("")
    judges = judges_in_order(judging.meetings, log, judge)
    told += cut_lines(judging.meetings, log, judges[0])
    judged = _judged(grid, judging, judges, log, told)
    folder = _folder(grid, judging, reports_dir)
    files = write_judged(judged, judging.meetings, log, judges, folder)
    print_warnings(screen, told)
    print_judged(screen, judged, files[-1])
    if fault is not None:
        print_line(screen, f"broke off: {fault}", "red")
        print_line(screen, "what is judged is kept; the same command again sends the rest")
    if as_json:
        broke = None if fault is None else str(fault)
        print_json(judge_record(judged) | {"plan": plan, "broke_off": broke})
    return 0 if fault is None else 1


def _endpoint(options: JudgeOptions, screen: Console) -> Endpoint | None:
    """Where the judge is; None where no address is given."""
    if not options.model.strip():
        raise UsageError("--judge-model: is empty; give the name that the endpoint has for it")
    if options.url is None:
        return None
    name, key = key_of(os.environ)
    return Endpoint(
        options.url, key, name, told=lambda line: print_line(screen, f"  {line}", "yellow")
    )


def _judging(grid: OpenGrid, options: JudgeOptions, asker: Asker, log: VerdictLog) -> Judging:
    """What the grid's answers, the reference and the log leave to judge.

    Raises:
        UsageError: there is nothing to compare; the line says what makes it.
    """
    cells = [cell for cell in rows_of(grid.cells) if NOISE not in cell_identity(cell)]
    chosen = select_cells(cells, options.only)
    reference = find_reference(options.against, cells)
    instructions = read_set(options.instructions, options.seeds_root or grid.data_root)
    forms = {one.cell.id: one.form for one in cells_to_ask(grid).able}
    contest = find_contest(
        chosen, reference, instructions, _reader(grid, forms, instructions, options.decoding)
    )
    notes = _notes(grid, options, contest, cells, instructions, forms)
    meetings = meetings_of(contest, instructions)
    if not meetings:
        why = "; ".join(notes) or "no cell is left beside the reference"
        raise UsageError(f"--against {shortened(options.against)}: nothing to compare: {why}")
    pairs = [one.pair for one in meetings]
    judge = judge_of(pairs, asker, log)
    missing = missing_showings(pairs, log, judge)
    if log.num_damaged:
        notes.append(f"{log.path}: {log.num_damaged} lines hold no verdict, and are passed over")
    return Judging(
        instructions,
        options.decoding,
        reference,
        tuple(meetings),
        tuple(missing),
        tuple(notes),
        judge,
    )


def _reader(
    grid: OpenGrid,
    forms: Mapping[str, PromptForm],
    instructions: InstructionSet,
    decoding: Decoding,
) -> Callable[[Cell], Answers | None]:
    """What finds a cell's answers: of what it is now, asked as this grid asks it; None without."""
    states = {state.cell.id: state for state in grid.states}

    @cache
    def answers_of(cell_id: str) -> Answers | None:
        frame = kept_answers(states[cell_id], forms.get(cell_id), instructions, decoding)
        return None if frame is None else dict(zip(frame["id"], frame["output"], strict=True))

    return lambda cell: answers_of(cell.id)


def _notes(
    grid: OpenGrid,
    options: JudgeOptions,
    contest: Contest,
    cells: Sequence[Cell],
    instructions: InstructionSet,
    finished: Container[str],
) -> list[str]:
    """What a reader must know of what is compared, one line each."""
    notes = [instructions.note] if instructions.note else []
    if silent := contest.without_answers:
        flags = _flags(grid, options)
        command = generate_command(silent, cells, grid=grid.argument, options=flags)
        of = f"{len(silent)} of {len(cells)} cells have" if len(silent) > 1 else "the cell has"
        text = f"{silent[0].label}: {of} no answers to {instructions.name}; `{command}` makes them"
        if unfinished := sum(cell.id not in finished for cell in silent):
            first = f"`zbench run-grid {grid.argument}` comes first"
            text += f"; not finished yet: {unfinished} ({first})"
        notes.append(text)
    if alone := contest.without_partner:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        notes.append(
            f"{alone[0].label}{more}: left out, {options.against} has no cell of the same data, "
            "fraction and seed"
        )
    if gone := contest.unmatched:
        notes.append(
            f"{options.against}: has no answer to {len(gone)} of {len(instructions.entries)} "
            f"instructions, the first is '{shortened(gone[0])}'; they are left out"
        )
    return notes


def _flags(grid: OpenGrid, options: JudgeOptions) -> list[str]:
    """What `generate` is told to make answers to the same set in the same way."""
    own, usual = options.decoding, GREEDY
    said = [
        ("--instructions", options.instructions, None),
        ("--temperature", own.temperature, usual.temperature),
        ("--top-p", own.top_p, usual.top_p),
        ("--max-new-tokens", own.max_new_tokens, usual.max_new_tokens),
        ("--seed", own.seed, usual.seed),
        ("--runs-dir", grid.runs_dir, Path("runs")),
        ("--data-root", options.seeds_root, None),
    ]
    return [word for flag, value, known in said if value != known for word in (flag, f"{value}")]


def _plan_record(judging: Judging, asker: Asker) -> dict[str, Any]:
    pairs = [meeting.pair for meeting in judging.meetings]
    return {
        "set": judging.instructions.name,
        "reference": judging.reference.name,
        "num_pairs": len(pairs),
        "num_alike": sum(pair.is_alike for pair in pairs),
        "num_requests": len(judging.missing),
        "prompt_tokens": tokens_of(judging.missing, asker.prompt),
        "most_completion_tokens": len(judging.missing) * asker.prompt.max_tokens,
        "notes": list(judging.notes),
    }


def _print_plan(screen: Console, judging: Judging, asker: Asker, plan: dict[str, Any]) -> None:
    alike = f", {plan['num_alike']:,} of them alike (a tie)" if plan["num_alike"] else ""
    print_line(
        screen,
        f"{plan['num_pairs']:,} pairs of answers to {plan['set']} against {plan['reference']}"
        f"{alike}, each in both orders",
    )
    if judging.missing:
        print_line(
            screen,
            f"to send to {asker.model}: {plan['num_requests']:,} requests, about "
            f"{plan['prompt_tokens']:,} tokens (4 characters each), and at most "
            f"{asker.prompt.max_tokens:,} tokens come back for each; all else is judged already",
        )
    else:
        print_line(screen, "nothing to send: all of it is judged already")


def _is_confirmed(options: JudgeOptions, screen: Console, number: int) -> bool:
    """Whether the requests may be sent.

    Raises:
        UsageError: there is nobody to ask.
    """
    if options.yes:
        return True
    if not (sys.stdin.isatty() and screen.is_terminal):
        raise UsageError(f"nothing was sent: {number:,} requests wait for --yes")
    import typer

    return typer.confirm("Send them?", err=True)


def _ask(
    missing: Sequence[Showing],
    endpoint: Endpoint,
    asker: Asker,
    log: VerdictLog,
    parallel: int,
    screen: Console,
) -> list[str]:
    """Asks for all; what was refused, in a line."""
    with verdict_progress(screen, len(missing)) as one_more:
        asked = ask(
            missing, endpoint, asker, log, parallel=parallel, on_verdict=lambda _: one_more()
        )
    if not asked.refused:
        return []
    return [f"{len(asked.refused)} requests were refused, the first: {asked.refused[0]}"]


def _judged(
    grid: OpenGrid,
    judging: Judging,
    judges: Sequence[Judge],
    log: VerdictLog,
    told: Sequence[str],
) -> JudgedGrid:
    prompt = judge_prompt()
    return JudgedGrid(
        grid_name=grid.spec.name,
        grid_title=grid.spec.title,
        set_name=judging.instructions.name,
        reference=judging.reference.name,
        judgements=tuple(
            judgement_of(one.name, judged_pairs(judging.meetings, log, one)) for one in judges
        ),
        questions={one.entry.id: one.entry.text for one in judging.meetings},
        prompt=(prompt.system, prompt.user),
        prompt_sha256=prompt.sha256,
        notes=(*judging.notes, *told),
    )


def _folder(grid: OpenGrid, judging: Judging, reports_dir: Path) -> Path:
    place = set_folder(reports_dir, grid.spec.name, judging.instructions, judging.decoding)
    return place / JUDGE_FOLDER / (slug_of(judging.reference.name) or "reference")
