"""A cell's events, and a tracker that is given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.loader import load_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellStarted, EpochValidated, Event, StepDone
from harness.tracking.beside.process import Beside

START_MS = 1_790_000_000_000


@pytest.fixture(scope="session")
def grid() -> GridSpec:
    return load_grid("demo")


@pytest.fixture(scope="session")
def cell(grid: GridSpec) -> Cell:
    return next(cell for cell in expand(grid) if cell.method == "lora")


def training(cell: Cell, steps: int, *, restored: int = 0) -> list[Event]:
    """The events of a training up to a step, validated after its tenth; some of it came before."""
    events: list[Event] = [CellStarted(cell.id, cell.label, 30, START_MS)]
    for step in range(1, steps + 1):
        event = StepDone(cell.id, step, 0, 2 / step, 1e-3, 100.0, START_MS + 1000 * step,
                         {"gate/max_abs": 0.1 * step}, restored=step <= restored)  # fmt: skip
        events.append(event)
        if step == 10:
            validated = EpochValidated(cell.id, 0, 1.5, START_MS + 10_000)
            events.append(replace(validated, restored=restored >= 10))
    return events


def state_of(cell: Cell, runs_dir: Path) -> CellState:
    [state] = read_states([cell], runs_dir=runs_dir, data_root=None)
    return state


def tracked(
    name: str,
    grid: GridSpec,
    cell: Cell,
    runs_dir: Path,
    events: Sequence[Event],
    *,
    seconds: float = 60.0,
) -> tuple[Beside, str | None]:
    """A tracker that was given events, and what it lacks in the end."""
    beside = Beside(name, grid, runs_dir, [state_of(cell, runs_dir)])
    for event in events:
        beside(event)
    return beside, beside.close(seconds)


def stopped_and_resumed(
    name: str, grid: GridSpec, cell: Cell, runs_dir: Path, end: CellEnded
) -> None:
    """A training that is stopped at step 20, and resumed from step 15 by another process."""
    for events in (training(cell, 20), [*training(cell, 30, restored=15), end]):
        assert tracked(name, grid, cell, runs_dir, events)[1] is None
