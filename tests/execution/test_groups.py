"""Cells that two processes train together: the same result, one writer, and no process left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.execution.groups import CellGroup
from harness.execution.plan import RunPlan
from harness.execution.run_grid import GridOutcome, run_grid
from harness.grid.folders import LOG_FILE, cell_folder
from harness.grid.locks import is_running
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.event_file import EVENTS_FILE
from harness.records.events import CellEnded, CellStarted, Event, StepDone
from harness.records.results import CellResult, read_result
from tests.fixtures.tiny import relative_distance
from tests.integration.test_end_to_end import grid_text

pytestmark = pytest.mark.long

METHODS = ["full", {"method": "lora", "dropout": 0.2}]
"""Weights that are divided among the processes, and an adapter that draws in each of them."""


@pytest.fixture(
    scope="module", params=[METHODS, pytest.param(["zero-init-linear"], marks=pytest.mark.slow)]
)
def methods(request: pytest.FixtureRequest) -> list[Any]:
    return list(request.param)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


def cells_of(methods: list[Any], devices: int, **training: object) -> list[Cell]:
    raw = yaml.safe_load(grid_text())
    raw["train"] |= training
    raw["tasks"] = raw["tasks"][:1]
    raw["blocks"] = [{"methods": methods, "fractions": [0.1], "gpus_per_cell": devices}]
    return expand(resolve_grid(raw, place="g.yaml"))


def run(
    cells: list[Cell], runs_dir: Path, world: Path, *listeners: Callable[[Event], None]
) -> GridOutcome:
    settings = RunSettings(runs_dir=runs_dir, data_root=world)
    states = read_states(cells, runs_dir=runs_dir, data_root=world)
    return run_grid(states, RunPlan(settings=settings, devices=("cpu", "cpu")), listeners)


def result_of(cell: Cell, runs_dir: Path) -> CellResult:
    result = read_result(cell_folder(runs_dir, cell))
    assert result is not None
    return result


def processes() -> list[int]:
    """Returns this process' workers."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.fixture(scope="module")
def alone(methods: list[Any], world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder in which one process trained each cell."""
    runs_dir = tmp_path_factory.mktemp("alone")
    for cell in cells_of(methods, 1):
        run_cell(cell, RunSettings(runs_dir=runs_dir, data_root=world), lambda event: None)
    return runs_dir


@pytest.fixture(scope="module")
def together(
    methods: list[Any], world: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event], GridOutcome]:
    """A runs folder in which two processes trained each cell, and what was told of it."""
    runs_dir, events = tmp_path_factory.mktemp("together"), []
    outcome = run(cells_of(methods, 2), runs_dir, world, events.append)
    return runs_dir, events, outcome


def test_two_processes_give_the_result_of_one(
    methods: list[Any], alone: Path, together: tuple[Path, list[Event], GridOutcome]
) -> None:
    runs_dir, _, outcome = together
    assert not outcome.failed
    for cell in cells_of(methods, 2):
        one, both = result_of(cell, alone), result_of(cell, runs_dir)
        assert one.train is not None
        assert both.train is not None
        assert both.train.epoch_losses == pytest.approx(one.train.epoch_losses, rel=1e-5)
        assert both.train.tokens == one.train.tokens
        (file,) = cell_folder(alone, cell).glob("adapter/*.safetensors")
        expected = load_file(file)
        found = load_file(cell_folder(runs_dir, cell) / "adapter" / file.name)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert relative_distance(tensor, expected[name]) < 1e-5, name
        assert len(both.scores) == len(one.scores) > 0
        for score, other in zip(both.scores, one.scores, strict=True):
            assert score.value == pytest.approx(other.value, abs=0.1)


def test_one_process_writes_and_tells(
    methods: list[Any], alone: Path, together: tuple[Path, list[Event], GridOutcome]
) -> None:
    runs_dir, events, _ = together
    for cell in cells_of(methods, 2):
        told = [event for event in events if event.cell_id == cell.id]
        steps = [event.step for event in told if isinstance(event, StepDone)]
        train = result_of(cell, runs_dir).train
        assert train is not None
        assert steps == list(range(1, train.steps + 1))
        assert sum(isinstance(event, CellStarted) for event in told) == 1
        assert [event.error for event in told if isinstance(event, CellEnded)] == [None]

        def files(root: Path, cell: Cell = cell) -> set[str]:
            folder = cell_folder(root, cell)
            return {str(path.relative_to(folder)) for path in folder.rglob("*")}

        assert files(runs_dir) == files(alone) | {LOG_FILE, EVENTS_FILE}  # of who starts a worker
    assert processes() == []


@pytest.mark.slow
def test_cells_of_one_and_two_devices_share_a_machine(world: Path, tmp_path: Path) -> None:
    small, large = cells_of(["lora", "random-init"], 1), cells_of(["zero-init-linear"], 2)
    ended: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, CellEnded):
            ended.append(event.cell_id)

    outcome = run([*small, *large], tmp_path, world, note)
    assert not outcome.failed
    assert ended[0] == large[0].id
    assert set(outcome.done) == {cell.id for cell in (*small, *large)}


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_fails_its_cell_alone(rank: int, world: Path, tmp_path: Path) -> None:
    large, small = cells_of(["full"], 2, epochs=40), cells_of(["base"], 1)
    killed: list[float] = []

    def kill(event: Event) -> None:
        if isinstance(event, StepDone) and not killed:
            os.kill(sorted(processes())[rank], signal.SIGKILL)
            killed.append(time.monotonic())

    outcome = run([*large, *small], tmp_path, world, kill)
    assert outcome.failed == (large[0].id,)
    assert outcome.done == (small[0].id,)
    error = result_of(large[0], tmp_path).error
    assert error is not None
    where = "" if rank == 0 else "rank 1 of 2: "
    assert error.message == (
        f"{where}its process ended with signal SIGKILL (out of memory?); run the same command again"
    )
    assert not is_running(cell_folder(tmp_path, large[0]))
    assert processes() == []


def test_a_training_that_fails_tells_its_own_reason(world: Path, tmp_path: Path) -> None:
    (cell,) = cells_of(["broken"], 2)
    assert run([cell], tmp_path, world).failed == (cell.id,)
    error = result_of(cell, tmp_path).error
    assert error is not None
    assert error.message.startswith("step ")
    assert "lower the learning rate" in error.message


@pytest.fixture
def group(world: Path, tmp_path: Path) -> Iterator[CellGroup]:
    """Two processes that give each other up after 20 seconds of silence."""
    (cell,) = cells_of(["zero-init-linear"], 2, epochs=200)
    settings = RunSettings(runs_dir=tmp_path, data_root=world)
    plan = RunPlan(settings=settings, devices=("cpu", "cpu"))
    (state,) = read_states([cell], runs_dir=tmp_path, data_root=world)
    started = CellGroup(state, (0, 1), plan, timeout_seconds=20)
    yield started
    started.stop()


@pytest.mark.slow
def test_a_rank_that_hangs_is_given_up(group: CellGroup) -> None:
    stopped, end, started = False, None, time.monotonic()
    while end is None:
        assert time.monotonic() - started < 200
        for event in group.events():
            if isinstance(event, StepDone) and not stopped:
                os.kill(group.workers[1].process.pid or 0, signal.SIGSTOP)
                stopped = True
            end = event if isinstance(event, CellEnded) else None
        time.sleep(0.05)
    assert stopped
    assert end.error is not None
    assert end.error.startswith("rank 0 of 2 waited for the others in vain")
    assert group.over
    assert sorted(group.take_freed()) == [0, 1]
