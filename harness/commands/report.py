"""`zbench report`: the tables, figures and page of a grid's results."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.analysis.earlier_verdicts import read_earlier_verdicts
from harness.analysis.frames import ReportInput, cells_frame, losses_frame, scores_frame
from harness.analysis.gathered import gathered_tunings
from harness.analysis.overlap_files import find_overlap
from harness.analysis.peft_suite import other_than_published
from harness.analysis.prompts import prompt_pairs
from harness.analysis.sources import ResultSource
from harness.analysis.tuning import tunings
from harness.commands.display import console, grid_warnings, print_json, print_warnings
from harness.errors import LONGEST_LIST, ReportError, ZbenchError, mask_secrets, printable
from harness.grid.budgets import budget_notes
from harness.grid.folders import Runs, runs_text
from harness.grid.loader import refuse
from harness.grid.remarks import remark_lines
from harness.grid.seed_sd import SeedSds
from harness.grid.workspace import OpenGrid


def report_command(
    grid: OpenGrid, *, reports_dir: Path, tracking_uri: str | None, as_json: bool
) -> int:
    """Renders a grid's report from the cells' folders, and from MLflow for what they lack."""
    from harness.report import build_report
    from harness.tracking.address import is_own, resolve_uri, shown_uri

    refuse(grid.twice.other_scores)
    states = grid.states
    screen = console(quiet=as_json)
    lost = [state for state in states if state.status == "failed" and state.result is None]
    print_warnings(
        screen, [*grid.notices, *(f"left out of the report: {state.fault}" for state in lost)]
    )
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    own = uri is None or is_own(uri, grid.runs_dir)
    if not any(state.result for state in states) and own:
        raise ReportError(
            f"{grid.spec.name}: no cell has a result in {runs_text(grid.runs)}; "
            f"run `zbench run-grid {grid.argument}` first, with the same --runs-dir"
        )
    source = ResultSource(
        grid.spec,
        states,
        runs_dir=grid.runs_dir,
        uri=None if own else uri,
        data_root=grid.data_root,
    )
    shown = shown_uri(uri, grid.runs_dir)
    only_tracked = only_in_mlflow(source.only_tracked, grid.runs, shown)
    stale = [state.fault for state in states if state.status == "stale" and state.fault]
    unread = [f"{source.problem}; read the cells' own files"] if source.problem else []
    print_warnings(screen, [*stale[:1], *unread, *only_tracked])
    folder = reports_dir / grid.spec.name
    earlier, damaged = read_earlier_verdicts(folder)
    print_warnings(screen, [damaged] if damaged else [])
    content = _content(grid, source, reports_dir / "theory", shown, only_tracked)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = replace(content, earlier_verdicts=earlier, date=now)
    gc.freeze()  # what is loaded by now stays: drawing is an eighth faster if it is not traversed
    report = build_report(content, folder)
    known = [line for state in states for line in state.damaged]
    print_warnings(screen, [*known, *(set(source.left_out) - {*known})])
    if source.lost:
        more = f" (and {len(source.lost) - 1} more files)" if len(source.lost) > 1 else ""
        print_warnings(screen, [f"the report lacks records: {source.lost[0]}{more}"])
    if as_json:
        judged = {"verdicts": report.verdicts} if report.verdicts else {}
        files = [str(path) for path in report.files]
        print_json({"page": str(report.page), "files": files, **judged})
    else:
        print(printable(report.terminal))
        print(printable(f"\nPage:    {report.page}"))
        print(printable(f"Tables and figures: {report.page.parent}"))
    return 0


def _content(
    grid: OpenGrid, source: ResultSource, theory: Path, uri: str, only_tracked: Sequence[str]
) -> ReportInput:
    """What the report shows; nothing of it is secret."""
    from harness.records.environment import git_commit, package_versions

    warned = (*grid.left_out, *grid_warnings(grid.states), *only_tracked)
    told = (
        *(f"{note}." for note in budget_notes(grid.spec)),
        *remark_lines(grid.spec.remarks, grid.spec.left_out),
        *(f"Warning: {text}." for text in warned),
    )
    return ReportInput(
        grid_name=grid.spec.name,
        grid_title=grid.spec.title,
        grid_yaml=mask_secrets(grid.spec.text),
        scores=scores_frame(grid.cells, source.results),
        cells=cells_frame(grid.states, source.results),
        losses=losses_frame(grid.cells, source.results),
        items=source.items,
        traces=source.trace,
        texts=source.texts,
        pictures=source.pictures,
        clusters=source.clusters,
        draws=source.draws,
        tables=grid.spec.tables,
        compare=grid.spec.compare,
        claims=grid.spec.claims,
        tunings=(*tunings(grid), *gathered_tunings(grid)),
        published_runs=grid.spec.published_runs,
        other_than_published=other_than_published(grid.cells),
        seed_sd=grid.spec.seed_sd or SeedSds(),
        benchmarks={task.name: task.benchmark for cell in grid.cells for task in cell.tasks},
        overlap=find_overlap(grid.cells, source.results, grid.runs, source.items),
        prompts=prompt_pairs(grid.cells, source.results),
        theory=theory,
        notes=tuple(map(mask_secrets, (*grid.spec.notes, *told))),
        training_flops=_training_flops(grid, source),
        environment=source.environment()
        | {
            "report made with": f"zbench {package_versions()['zbench']}, "
            f"{git_commit() or 'no commit'}",
            "tracking": "the cells' own files" if source.problem else uri,
        },
    )


def _training_flops(grid: OpenGrid, source: ResultSource) -> dict[str, float]:
    """Operations of the trained cells whose tokens are known."""
    from harness.estimate.costs import training_flops
    from harness.estimate.tokens import token_counter

    found: dict[str, float] = {}
    with contextlib.suppress(ZbenchError):  # data or tokenizer are not here any more
        tokens_of = token_counter(
            runs_dir=grid.runs_dir,
            data_root=grid.data_root,
            num_rows=grid.num_rows,
            read_only=True,
        )
        for cell in grid.cells:
            result = source.results.get(cell.id)
            if result is None or result.train is None:
                continue
            if (flops := training_flops(cell, tokens_of)) is not None:
                found[cell.id] = flops
    return found


def only_in_mlflow(labels: Sequence[str], runs: Runs, uri: str) -> list[str]:
    """The line that says which results are in no folder, if there are any."""
    if not labels:
        return []
    listed = ", ".join(labels[:LONGEST_LIST])
    more = f" and {len(labels) - LONGEST_LIST} more" if len(labels) > LONGEST_LIST else ""
    return [f"only in MLflow ({uri}), not done in {runs_text(runs)}: {listed}{more}"]
