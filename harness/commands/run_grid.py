"""`zbench run-grid`: what is to do of a grid, shown as it runs and logged to MLflow."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.cell.settings import RunSettings
from harness.commands.display import (
    cell_records,
    cell_text,
    console,
    grid_warnings,
    new_table,
    print_cells,
    print_json,
    print_line,
    print_plan_warnings,
    print_tracking_problem,
    print_warnings,
)
from harness.commands.rounds import LEFT, is_done, is_submitted, run_rounds
from harness.commands.tuning import tuning_lines, tuning_records, waiting_lines
from harness.errors import UsageError, mask_secrets
from harness.estimate.plan import PlanRow, plan_rows
from harness.execution.executor import Executor, Submits
from harness.execution.executors import executor_of
from harness.execution.plan import Place, RunPlan
from harness.execution.run_grid import GridOutcome
from harness.execution.scheduling import devices_needed
from harness.grid.locks import holder
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid, prepare_run, refuse_changed_inputs
from harness.prepare.offline import refuse_missing
from harness.tracking.address import DATABASE_FILE, is_own, is_server, resolve_uri
from harness.tracking.database import is_behind
from harness.tracking.metrics import content_hash
from harness.tracking.trackers import Trackers, start_besides

if TYPE_CHECKING:
    from rich.console import Console

    from harness.tracking.live import Tracker


def run_grid_command(
    grid: OpenGrid,
    place: Place,
    *,
    tracking_uri: str | None,
    as_json: bool,
) -> int:
    """Runs what is to do, showing it as it goes; logs to MLflow beside it."""
    executor = executor_of(place)
    allowed = place.allow_data_mismatch
    warnings = [*grid.notices, *prepare_run(grid, allow_data_mismatch=allowed)]
    refuse_changed_inputs(grid.states)
    refuse_missing(grid.expected, grid.data_root, executor=place.executor, grid=grid.argument)
    work = [state for state in grid.takes_on if state.status in LEFT]
    settings = RunSettings(runs_dir=grid.runs_dir, data_root=grid.data_root)
    uri = resolve_uri(grid.spec, grid.runs_dir, tracking_uri)
    plan = RunPlan(settings, place=replace(place, tracking_uri=uri), grid=grid.spec)
    plan = executor.prepare(_largest_round(grid, work), plan)
    work += [s for s in grid.takes_on if s.status == "running" and s.cell.id in plan.queued]
    screen = console(quiet=as_json)
    if place.dry_run:
        return _print_preview(screen, executor, work, plan)
    if place.workers is not None and plan.devices[:1] != ("cpu",) and work:
        screen.print("warning: --workers is for the CPU; every GPU has one worker")
    _print_summary(screen, grid, executor.describe(plan) if work else "")
    print_warnings(screen, [*warnings, *plan.notes])
    besides, missing = start_besides(grid.spec, grid.runs_dir, grid.states)
    print_warnings(screen, missing)
    trackers = Trackers(_start_tracker(grid, uri, bool(work)), besides)
    grid, outcome = run_rounds(grid, plan, screen, trackers, executor)
    after = grid.states
    problem = trackers.close()
    print_warnings(screen, trackers.told)
    if outcome.submitted and besides and not place.follow:
        others = ", ".join(one.name for one in besides)
        print_warnings(screen, [f"tracking.also: the jobs themselves log nothing to {others}; "
                                "--follow does"])  # fmt: skip
    _print_outcome(screen, grid, outcome, uri, problem)
    for line in trackers.notes:
        print_line(screen, line)
    if outcome.submitted and uri is not None and (place.follow or not is_server(uri)):
        why = "whoever follows them logs them" if place.follow else "jobs log to a server alone"
        line = "once they have ended, `zbench sync` with the same grid logs them"
        print_line(screen, f"{why}: {line}")
    standing = grid_warnings(after)
    print_warnings(screen, standing)
    if as_json:
        told = {"tunings": tuning_records(grid)} if grid.tunings else {}
        print_json(
            {
                "outcome": dataclasses.asdict(outcome),
                "warnings": warnings + standing,
                **told,
                "cells": cell_records(after),
            }
        )
    if outcome.interrupted:
        raise KeyboardInterrupt
    return 0 if is_done(grid) or is_submitted(grid, outcome) else 1


def _print_preview(
    screen: Console, executor: Executor, work: Sequence[CellState], plan: RunPlan
) -> int:
    """Prints what would be submitted.

    Raises:
        UsageError: the executor submits nothing.
    """
    if not isinstance(executor, Submits):
        raise UsageError(f"--dry-run: --executor {plan.place.executor} submits nothing")
    print_warnings(screen, plan.notes)
    for line in executor.preview(work, plan).splitlines():
        print_line(screen, line)
    return 0


def _start_tracker(grid: OpenGrid, uri: str | None, has_work: bool) -> Tracker | None:
    """Starts logging; None where there is nothing to log, or nowhere.

    That is where nothing runs and the runs folder's own database holds all that is done. Importing
    MLflow takes longer than all the rest of such a run.
    """
    if uri is None:
        return None
    if not has_work and is_own(uri, grid.runs_dir):
        contents = {content_hash(state.folder) for state in grid.states if state.result}
        if not is_behind(grid.runs_dir / DATABASE_FILE, contents):
            return None
    from harness.tracking.live import Tracker

    return Tracker(grid.spec, uri, grid.runs_dir, grid.states)


def _largest_round(grid: OpenGrid, work: Sequence[CellState]) -> Sequence[CellState]:
    """The cells that could run together: those to do now, or those that wait for them."""
    later = grid.expected[len(grid.states) :]
    return max(work, later, key=lambda states: sum(map(devices_needed, states)))


def _print_summary(screen: Console, grid: OpenGrid, where: str) -> None:
    """Prints what a run will do before it begins."""
    states = grid.states
    counts = Counter(state.status for state in states)
    settled = sum(state.cell.id in grid.settled for state in states)
    counts["failed"] -= settled
    to_do = counts["to do"] + counts["failed"]
    running = f", {counts['running']} running elsewhere" if counts["running"] else ""
    again = f" ({counts['failed']} of them failed before)" if counts["failed"] else ""
    print_line(screen, grid.spec.title, "bold")
    if counts["pruned"]:
        running += f", {counts['pruned']} stopped early"
    if settled:
        running += f", {settled} trial{'s' * (settled > 1)} diverged"
    if grid.waiting:
        running += f"; {len(grid.waiting)} more wait for trials"
    screen.print(
        f"{len(states)} cells: {counts['done']} done, {to_do} to do{again}{running}"
        + (f"; {where}" if to_do and where else ""),
        highlight=False,
    )
    if not to_do:
        return
    table = new_table(
        ["model", "method"], ["trainable", "cells", "steps per cell", "learning rate"]
    )
    groups: dict[tuple[str, str], list[PlanRow]] = {}
    planned = plan_rows(states, grid.num_rows)
    for state, row in zip(states, planned, strict=True):
        groups.setdefault((state.cell.model_name, state.cell.method_label), []).append(row)
    for (model, method), members in groups.items():
        table.add_row(
            cell_text(model),
            cell_text(method),
            f"{members[0].trainable_parameters:,}",
            str(len(members)),
            _range([row.steps for row in members]),
            _range([row.learning_rate for row in members]),
        )
    screen.print(table)
    print_plan_warnings(screen, planned)


def _range(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    if not known:
        return "–"
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"


def _print_outcome(
    screen: Console,
    grid: OpenGrid,
    outcome: GridOutcome,
    uri: str | None,
    problem: str | None,
) -> None:
    """Prints what came of a run."""
    states, settled = grid.states, grid.settled
    if outcome.done or outcome.failed:
        print_cells(screen, states)
    print_tracking_problem(screen, problem)
    done = sum(state.status == "done" for state in states)
    text = f"{done} of {len(states) + len(grid.waiting)} cells done"
    if pruned := sum(state.status == "pruned" for state in states):
        text += f", {pruned} stopped early"
    if settled:
        text += f", {len(settled)} trial{'s' * (len(settled) > 1)} diverged"
    if again := len(set(outcome.failed) - settled):
        text += f", {again} failed (the same command tries them again)"
    if outcome.submitted:
        text += f", {len(outcome.submitted)} in the queue"
    elif is_done(grid):
        text += "; now `zbench report` with the same grid"
    for line in tuning_lines(grid):
        print_line(screen, line)
    logged = "not logged (none)" if uri is None else mask_secrets(uri)
    print_line(screen, f"{text}. MLflow: {logged}")
    for line in waiting_lines(grid):
        print_line(screen, f"not done: {line.removeprefix('waits:').strip()}")
    for state in states:
        if state.status == "running" and state.cell.id not in outcome.submitted:
            print_line(screen, f"not done here: {state.cell.label}: {holder(state.folder)} runs it")
