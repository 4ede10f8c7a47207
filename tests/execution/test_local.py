"""Worker processes: a cell's failure, and a worker's death, cost that cell alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from harness.cell.settings import RunSettings
from harness.execution.local import LocalExecutor
from harness.execution.plan import RunPlan
from harness.execution.run_grid import run_grid
from harness.grid.folders import cell_folder
from harness.grid.lease import LEASE_VARIABLE
from harness.grid.locks import is_running, locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.shared_folder import keep_reach
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellQueued, Event, Warned
from tests.fixtures.machines import HOLD, as_machine
from tests.grid.test_loader import GRID


@pytest.fixture
def cells() -> list[Cell]:
    """Returns cells whose model is not there: each fails as soon as it is looked for."""
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[:3]


def own(run: Callable[[Sequence[CellState], RunPlan], Iterator[Event]]) -> LocalExecutor:
    """An executor whose cells are run by a function."""
    executor = LocalExecutor()
    executor.run = run  # type: ignore[method-assign]
    return executor


def plan(runs_dir: Path) -> RunPlan:
    settings = RunSettings(runs_dir=runs_dir, data_root=runs_dir)
    return RunPlan(settings=settings, devices=("cpu",))


@pytest.mark.long
def test_every_cell_fails_for_itself_with_its_reason(cells: list[Cell], tmp_path: Path) -> None:
    events: list[object] = []
    states = read_states(cells, runs_dir=tmp_path, data_root=None)
    outcome = run_grid(states, plan(tmp_path), [events.append])
    assert outcome.failed == tuple(cell.id for cell in cells)
    assert not outcome.done
    ended = [event for event in events if isinstance(event, CellEnded)]
    assert all(event.error and str(tmp_path) in event.error for event in ended)
    after = read_states(cells, runs_dir=tmp_path, data_root=None)
    assert [state.status for state in after] == ["failed"] * 3
    for state in after:
        assert state.result is not None
        assert state.result.error is not None
        assert (state.folder / "log.txt").read_text().count("Traceback") >= 1
        assert not is_running(state.folder)


def test_a_cell_that_another_process_leaves_is_taken_on(cells: list[Cell], tmp_path: Path) -> None:
    """Three cells: one that is ours, one that a process holds throughout, one that it leaves."""
    ours, held, left = cells
    taken: list[list[str]] = []

    def executor(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        taken.append([state.cell.id for state in states])
        for state in states:
            yield CellEnded(state.cell.id, "", 1.0, elsewhere=state.cell.id == held.id)
        if ours.id in taken[-1]:
            stack.close()  # the other process ends

    with contextlib.ExitStack() as stack, locked(cell_folder(tmp_path, held)):
        stack.enter_context(locked(cell_folder(tmp_path, left)))
        states = read_states(cells, runs_dir=tmp_path, data_root=None)
        assert [state.status for state in states] == ["to do", "running", "running"]
        outcome = run_grid(states, plan(tmp_path), [], own(executor))
    assert taken == [[ours.id], [left.id]]
    assert outcome.done == (ours.id, left.id)
    assert outcome.skipped == (held.id,)


def test_a_cell_that_a_lost_machine_held_is_taken_on(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but its heartbeat tells here whether a process there lives."""
    ours, left, held = cells
    monkeypatch.setenv(LEASE_VARIABLE, "2")
    taken: list[list[str]] = []
    environment = {**os.environ, **as_machine(tmp_path, "node7", locks_seen=False)}

    def hold(cell: Cell) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(cell_folder(tmp_path, cell))],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def executor(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        taken.append([state.cell.id for state in states])
        for state in states:
            yield CellEnded(state.cell.id, "", 1.0)
        lost.kill()

    keep_reach(tmp_path, "unknown")
    with hold(left) as lost, hold(held) as alive:
        states = read_states(cells, runs_dir=tmp_path, data_root=None)
        assert [state.status for state in states] == ["to do", "running", "running"]
        outcome = run_grid(states, plan(tmp_path), [], own(executor))
        alive.kill()
    assert taken == [[ours.id], [left.id]]
    assert outcome.done == (ours.id, left.id)
    assert outcome.skipped == (held.id,)


def test_a_cell_that_is_always_busy_ends_the_run(cells: list[Cell], tmp_path: Path) -> None:
    passes: list[int] = []

    def executor(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        passes.append(len(states))
        for state in states:
            yield CellEnded(state.cell.id, "", 1.0, elsewhere=True)

    states = read_states(cells, runs_dir=tmp_path, data_root=None)
    assert run_grid(states, plan(tmp_path), [], own(executor)).skipped == tuple(
        cell.id for cell in cells
    )
    assert passes == [3, 3]


@pytest.mark.long
def test_what_there_was_no_room_for_is_offered_again_once_another_has_ended(
    cells: list[Cell], tmp_path: Path
) -> None:
    """A site that takes one job at a time; the cells have failed before."""
    run_grid(read_states(cells, runs_dir=tmp_path, data_root=None), plan(tmp_path), [])
    states = read_states(cells, runs_dir=tmp_path, data_root=None)
    assert {state.status for state in states} == {"failed"}
    offered: list[int] = []

    def executor(states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        offered.append(len(states))
        yield CellQueued(states[0].cell.id, "7_0")
        if len(states) > 1:
            yield Warned(states[-1].cell.id, "no more room")
        if follows:
            yield CellEnded(states[0].cell.id, "", 1.0)

    follows = True
    outcome = run_grid(states, plan(tmp_path), [], own(executor))
    assert offered == [3, 2, 1]
    assert set(outcome.done) == {cell.id for cell in cells}
    follows = False
    offered.clear()
    outcome = run_grid(states, plan(tmp_path), [], own(executor))
    assert offered == [3]  # asked once: nothing has made room
    assert len(outcome.submitted) == 1


def test_base_models_are_run_first(cells: list[Cell], tmp_path: Path) -> None:
    assert cells[0].method == "base"
    ended: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, CellEnded):
            ended.append(event.cell_id)

    states = read_states(cells[::-1], runs_dir=tmp_path, data_root=None)
    run_grid(states, plan(tmp_path), [note])
    assert ended == [cells[0].id, cells[2].id, cells[1].id]


@pytest.mark.long
def test_a_killed_worker_fails_its_cell_and_is_replaced(cells: list[Cell], tmp_path: Path) -> None:
    states = read_states(cells, runs_dir=tmp_path, data_root=None)
    killed: list[int] = []

    def kill_first(event: object) -> None:
        if isinstance(event, CellEnded) and not killed:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
            for child in map(int, children.split()):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    killed.append(child)
                    os.kill(child, signal.SIGKILL)

    outcome = run_grid(states, plan(tmp_path), [kill_first])
    assert killed
    assert outcome.failed == tuple(cell.id for cell in cells)
    messages = [
        state.result.error.message
        for state in read_states(cells, runs_dir=tmp_path, data_root=None)
        if state.result and state.result.error
    ]
    assert len(messages) == 3
    assert sum("SIGKILL" in message for message in messages) == 1
