"""`zbench generate`: the answers of a grid's finished cells to a set of instructions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answers.cells import Answering, answer_cell, cells_to_ask, is_answered, key_of
from harness.answers.columns import Beside, Column, beside_column, shown_cell
from harness.answers.files import Answered, AnswerFiles, write_answers
from harness.answers.instructions import read_set
from harness.answers.store import (
    InstructionSet,
    read_origin,
    read_responses,
    responses_path,
    set_folder,
    set_key,
)
from harness.cell.run import describe
from harness.cell.settings import RunSettings
from harness.commands.answer_progress import AnswerProgress
from harness.commands.display import (
    cell_text,
    console,
    new_table,
    print_json,
    print_line,
    print_warnings,
)
from harness.errors import ReportError
from harness.evaluation.benchmarks import Decoding
from harness.execution.devices import resolve_devices, take_device, worker_threads
from harness.execution.gpu_check import check_gpus
from harness.execution.worker import logging_beside_the_screen
from harness.grid.checks import DATA_ROOT_VARIABLE
from harness.grid.folders import LOG_FILE
from harness.grid.workspace import OpenGrid
from harness.records.events import Event, Warned

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """What became of the cells."""

    kept: tuple[str, ...]
    """Ids of cells that had answered before."""
    failed: dict[str, str]
    """Why a cell has no answers, by its id."""


def generate_command(
    grid: OpenGrid,
    *,
    instructions: str | None,
    seeds_root: Path | None,
    beside: Sequence[Path],
    decoding: Decoding,
    reports_dir: Path,
    device: str,
    as_json: bool,
) -> int:
    """Generates what is missing, cell by cell, and writes the files of all that is there.

    Returns:
        1 where a cell failed, else 0.

    Raises:
        ReportError: no cell is finished, or none has answers.
    """
    screen = console(quiet=as_json)
    named = os.environ.get(DATA_ROOT_VARIABLE)  # a world's grid has another data root
    root = seeds_root or (Path(named).expanduser() if named else None) or grid.data_root
    chosen = read_set(instructions, root)
    besides = [beside_column(path, chosen.entries) for path in beside]
    asked = cells_to_ask(grid)
    print_warnings(screen, [*grid.notices, *asked.lines])
    if not asked.able:
        raise ReportError(
            f"{grid.spec.name}: no finished cell to ask in {grid.runs_dir}; run `zbench run-grid "
            f"{grid.argument}` first, with the same --runs-dir"
        )
    folder = set_folder(reports_dir, grid.spec.name, chosen, decoding)
    outcome = _answer(grid, asked.able, chosen, decoding, device, folder / LOG_FILE, screen)
    answered, notes = _collected(asked.able, outcome, chosen, decoding)
    failures = [f"failed: {name}: {why}" for name, why in _failures(asked.able, outcome)]
    told = [*asked.lines, *failures, *(one.line for one in besides)]
    notes += [f"{line[:1].upper()}{line[1:]}." for line in told]
    if not answered:
        for line in failures:
            print_line(screen, line, "red")
        raise ReportError(f"{grid.spec.name}: no cell has answered; see {folder / LOG_FILE}")
    files = write_answers(
        folder, grid.spec.name, answered, chosen, decoding, [b.column for b in besides], notes
    )
    if as_json:
        print_json(_record(asked.able, outcome, chosen, decoding, files, besides, asked.lines))
    else:
        _print_outcome(screen, asked.able, outcome, files, besides)
    return 1 if outcome.failed else 0


def _answer(
    grid: OpenGrid,
    able: Sequence[Answering],
    chosen: InstructionSet,
    decoding: Decoding,
    device: str,
    log: Path,
    screen: Console,
) -> _Outcome:
    """Generates the answers that are not there yet, one cell after the other."""
    kept = tuple(one.cell.id for one in able if is_answered(one, chosen, decoding))
    work = [one for one in able if one.cell.id not in kept]
    failed: dict[str, str] = {}
    title = f"{len(chosen.entries)} instructions ({chosen.name}), {len(able)} cells"
    print_line(screen, f"{title}: {len(kept)} answered before, {len(work)} to ask", "bold")
    if not work:
        return _Outcome(kept, failed)
    devices = resolve_devices(device, workers=1, num_cells=1)
    check_gpus(devices)
    settings = RunSettings(
        runs_dir=grid.runs_dir,
        data_root=grid.data_root,
        device=take_device(devices[0]),
        threads=worker_threads(devices, 1),
    )
    with (
        logging_beside_the_screen(log),
        AnswerProgress(screen, len(work), len(chosen.entries)) as progress,
    ):
        warned: set[str] = set()

        def emit(event: Event) -> None:
            if isinstance(event, Warned) and event.message not in warned:
                warned.add(event.message)
                print_warnings(screen, [event.message])

        for one in work:
            label = shown_cell(one.cell).label
            progress.start(label)
            try:
                answer_cell(
                    one, chosen, decoding, settings, emit=emit, on_progress=progress.advance
                )
            except Exception as fault:  # of one cell: the others are asked, the log has more
                logger.exception("%s failed", label)
                failed[one.cell.id] = describe(fault)
            progress.end(failed.get(one.cell.id))
    return _Outcome(kept, failed)


def _collected(
    able: Sequence[Answering], outcome: _Outcome, chosen: InstructionSet, decoding: Decoding
) -> tuple[list[Answered], list[str]]:
    """The answers of all cells that have them, and what a reader must know of how they came."""
    answered = []
    notes: dict[str, None] = {}
    for one in able:
        if one.cell.id in outcome.failed:
            continue
        key = key_of(one.cell, one.form, chosen, decoding)
        frame = read_responses(one.state.folder, key)
        origin = read_origin(one.state.folder, key) or {}
        if frame is None:
            continue
        answered.append(Answered(one.cell, one.form.name, frame))
        most, cut = origin.get("max_new_tokens"), origin.get("num_cut")
        if most != decoding.max_new_tokens:
            room = f"{one.cell.model_name}: at most {most} new tokens"
            notes[f"{room}, half of the positions that it has."] = None
        if cut:
            notes[f"{one.cell.model_name}: {cut} prompts are longer than it has room for; their "
                  "beginning is cut."] = None  # fmt: skip
    return answered, list(notes)


def _failures(able: Sequence[Answering], outcome: _Outcome) -> list[tuple[str, str]]:
    return [
        (shown_cell(one.cell).label, outcome.failed[one.cell.id])
        for one in able
        if one.cell.id in outcome.failed
    ]


def _print_outcome(
    screen: Console,
    able: Sequence[Answering],
    outcome: _Outcome,
    files: AnswerFiles,
    besides: Sequence[Beside],
) -> None:
    table = new_table(["method"], ["answers", "tokens", "characters", "ended itself", "empty"])
    for column in files.columns:
        table.add_row(cell_text(column.title), *_numbers(column))
    screen.print(table)
    for one in besides:
        print_line(screen, one.line)
    for label, why in _failures(able, outcome):
        print_line(screen, f"failed: {label}: {why}", "red")
    if outcome.failed:
        print_line(screen, f"log: {files.page.parent / LOG_FILE}; the same command tries again")
    print_line(screen, f"Page:    {files.page}")
    print_line(screen, f"Answers: {files.responses}, and {files.outputs[0].name} of each cell")


def _numbers(column: Column) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        str(len(column.answers)),
        number(column.mean_tokens, ".1f"),
        number(column.mean_characters, ",.1f"),
        number(column.ended_ratio, ".0%"),
        number(column.empty_ratio, ".0%"),
    ]


def _record(
    able: Sequence[Answering],
    outcome: _Outcome,
    chosen: InstructionSet,
    decoding: Decoding,
    files: AnswerFiles,
    besides: Sequence[Beside],
    left_out: Sequence[str],
) -> dict[str, Any]:
    """What a machine reads."""
    key = set_key(chosen, decoding)

    def status(cell_id: str) -> str:
        if cell_id in outcome.failed:
            return "failed"
        return "kept" if cell_id in outcome.kept else "generated"

    return {
        "set": {"name": chosen.name, "sha256": chosen.sha256, "entries": len(chosen.entries)},
        "key": key,
        "page": str(files.page),
        "responses": str(files.responses),
        "cells": [
            {
                "id": one.cell.id,
                "label": shown_cell(one.cell).label,
                "status": status(one.cell.id),
                "file": str(
                    responses_path(one.state.folder, key_of(one.cell, one.form, chosen, decoding))
                ),
                "error": outcome.failed.get(one.cell.id),
            }
            for one in able
        ],
        "left_out": list(left_out),
        "methods": [
            {
                "title": column.title,
                "answers": len(column.answers),
                "mean_tokens": column.mean_tokens,
                "mean_characters": column.mean_characters,
                "ended_ratio": column.ended_ratio,
                "empty_ratio": column.empty_ratio,
                "published": column.is_beside,
            }
            for column in files.columns
        ],
        "beside": [
            {
                "file": str(one.path),
                "title": one.column.title,
                "matched": one.num_matched,
                "not_matched": list(one.unmatched),
                "other_instructions": one.num_other,
            }
            for one in besides
        ],
    }
