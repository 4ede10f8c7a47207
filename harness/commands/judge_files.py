"""What `zbench judge` writes and prints of verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.answers.judged import Meeting, judges_of, verdict_records
from harness.answers.verdicts import Judge, VerdictLog
from harness.commands.display import print_line
from harness.records.files import write_bytes, write_frame, write_text
from harness.report.judging import (
    NOT_ALPACA_EVAL,
    JudgedGrid,
    judge_page,
    paired_table,
    win_table,
)
from harness.report.judging_records import judge_record, win_records
from harness.report.render import to_markdown
from harness.report.text import to_text

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120
"""Columns of the terminal that a table takes at most."""
FILES = ("verdicts.parquet", "judge.json", "win-rates.csv", "win-rates.md", "judge.html")


def judges_in_order(meetings: Sequence[Meeting], log: VerdictLog, first: Judge) -> list[Judge]:
    """All who have judged any of it, one of them first."""
    return [first, *(judge for judge in judges_of(meetings, log) if judge != first)]


def write_judged(
    judged: JudgedGrid,
    meetings: Sequence[Meeting],
    log: VerdictLog,
    judges: Sequence[Judge],
    folder: Path,
) -> list[Path]:
    """Writes all files; the page is the last.

    Raises:
        StorageError: one cannot be written.
    """
    import pandas as pd

    records = list(verdict_records(meetings, log, judges, judged.reference))
    tables = [
        table
        for one in judged.judgements
        for table in (win_table(judged, one), *paired_table(judged, one))
    ]
    rates = pd.DataFrame(list(win_records(judged)))
    paths = [folder / name for name in FILES]
    write_frame(paths[0], pd.DataFrame(records))
    write_text(paths[1], json.dumps(judge_record(judged), indent=1) + "\n")
    write_bytes(paths[2], rates.to_csv(index=False, lineterminator="\n").encode())
    write_text(paths[3], "\n".join(map(to_markdown, tables)))
    write_text(paths[4], judge_page(judged, list(FILES)))
    return paths


def print_judged(screen: Console, judged: JudgedGrid, page: Path) -> None:
    """Prints the tables of the judge that was asked now."""
    judgement = judged.judgements[0]
    for table in (win_table(judged, judgement), *paired_table(judged, judgement)):
        print_line(screen, f"\n{to_text(table, min(screen.width, WIDTH))}")
    print_line(screen, NOT_ALPACA_EVAL)
    if others := judged.judgements[1:]:
        names = "; ".join(one.judge for one in others)
        print_line(screen, f"judged by others too, in tables of their own on the page: {names}")
    print_line(screen, f"Page:    {page}")
