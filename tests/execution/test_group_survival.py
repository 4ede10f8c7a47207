"""A cell of two processes that is stopped, or out of memory: it resumes to the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.cell.memory import SmallerBudget, budget_key, store_budget
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.execution.groups import CellGroup
from harness.execution.plan import RunPlan
from harness.execution.run_grid import GridOutcome, run_grid
from harness.execution.worker import RankFailed
from harness.grid.folders import CHECKPOINTS_FOLDER, cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.events import CellEnded, Event, StepDone, Warned
from harness.records.results import TrainResult, read_result
from tests.integration.test_end_to_end import grid_text

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # on a machine that may be busy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


def one_cell(method: str, minutes: float = 10.0) -> Cell:
    """Returns a cell that two processes train, in some 40 steps, and do not score.

    What scoring imports takes longer than the training; that what is resumed is scored is held by
    tests/integration.
    """
    raw = yaml.safe_load(grid_text())
    raw["train"] |= {"epochs": 6, "checkpoint_minutes": minutes}
    raw["blocks"] = [{"methods": [method], "fractions": [0.1], "gpus_per_cell": 2}]
    (cell,) = expand(resolve_grid(raw, place="g.yaml"))
    return cell.model_copy(update={"tasks": ()})


def run(
    cell: Cell, runs_dir: Path, world: Path, *listeners: Callable[[Event], None]
) -> GridOutcome:
    settings = RunSettings(runs_dir=runs_dir, data_root=world)
    states = read_states([cell], runs_dir=runs_dir, data_root=world)
    return run_grid(states, RunPlan(settings=settings, devices=("cpu", "cpu")), listeners)


def trained(cell: Cell, runs_dir: Path) -> tuple[TrainResult, list[bytes]]:
    """Returns what the training gave, its times left out, and the files that it wrote."""
    folder = cell_folder(runs_dir, cell)
    result = read_result(folder)
    assert result is not None
    assert result.train is not None
    timeless = replace(result.train, seconds=0.0, tokens_per_second=0.0, peak_memory_bytes=0)
    tensors = sorted((folder / "adapter").glob("*.safetensors"))
    assert tensors
    return timeless, [path.read_bytes() for path in tensors]


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_two_processes_that_are_stopped_resume_to_the_same_bits(
    method: str, world: Path, tmp_path: Path
) -> None:
    cell = one_cell(method)
    assert run(cell, tmp_path / "whole", world).done == (cell.id,)
    steps: list[int] = []

    def stop_at_ten(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event.step)
            if event.step == 10:
                os.kill(os.getpid(), signal.SIGTERM)  # to the run, which tells all ranks

    parts = tmp_path / "parts"
    assert run(cell, parts, world, stop_at_ten).interrupted
    (left,) = (cell_folder(parts, cell) / CHECKPOINTS_FOLDER).glob("step-*")
    reached = int(left.name[5:])
    assert reached >= 10
    seen: list[StepDone] = []

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            seen.append(event)

    assert run(cell, parts, world, note).done == (cell.id,)
    assert [event.step for event in seen if event.restored] == list(range(1, reached + 1))
    assert [event.step for event in seen] == list(range(1, len(seen) + 1))
    assert trained(cell, parts) == trained(cell, tmp_path / "whole")
    assert not (cell_folder(parts, cell) / CHECKPOINTS_FOLDER).exists()


@pytest.mark.slow
def test_a_rank_that_alone_is_told_to_stop_stops_all_and_fails_nothing(
    world: Path, tmp_path: Path
) -> None:
    cell = one_cell("lora", minutes=0)
    groups: list[int] = []

    def stop_one(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5 and not groups:
            own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            workers = [
                int(child)
                for child in own
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
            ]
            groups.extend(workers)
            os.kill(workers[-1], signal.SIGTERM)

    ended: list[CellEnded] = []

    def note(event: Event) -> None:
        if isinstance(event, CellEnded):
            ended.append(event)

    run(cell, tmp_path, world, stop_one, note)
    assert len(groups) == 2
    (told,) = ended
    assert told.error is not None
    assert "told to stop (SIGTERM)" in told.error
    result = read_result(cell_folder(tmp_path, cell))
    assert result is None or result.error is None


@pytest.mark.parametrize("to_its_end", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_full_memory_on_one_rank_starts_all_again(
    to_its_end: bool, world: Path, tmp_path: Path
) -> None:
    cell = one_cell("lora")
    settings = RunSettings(runs_dir=tmp_path, data_root=world)
    plan = RunPlan(settings=settings, devices=("cpu", "cpu"))
    (state,) = read_states([cell], runs_dir=tmp_path, data_root=world)
    store_budget(tmp_path, budget_key(cell, "cpu"), 500)
    group = CellGroup(state, [0, 1], plan)
    first = {worker.process.pid for worker in group.workers}
    # What a rank tells when its memory is full; the rest is real.
    group.failures.append(
        RankFailed(1, SmallerBudget.__name__, "out of memory with 1000 tokens", False, 0.0)
    )
    told = list(group.events())
    assert [event for event in told if isinstance(event, Warned) and event.restarts]
    assert len(group.workers) == 2
    assert first.isdisjoint(worker.process.pid for worker in group.workers)
    assert not group.over
    if not to_its_end:
        group.stop()
        return
    ended: list[CellEnded] = []
    while not group.over:
        ended += [event for event in group.events() if isinstance(event, CellEnded)]
    assert [event.error for event in ended] == [None]
    assert trained(cell, tmp_path)[0].steps > 0
