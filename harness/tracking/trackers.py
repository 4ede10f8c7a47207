"""All that log a run: MLflow, and the trackers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.grid.schema import GridSpec
from harness.grid.status import CellState
from harness.records.events import Event
from harness.tracking.beside.process import CLOSE_SECONDS, Beside
from harness.tracking.beside.registry import not_installed

if TYPE_CHECKING:
    from harness.tracking.live import Tracker


class Trackers:
    """A listener that passes events to MLflow, where that is wanted, and to those beside it."""

    def __init__(self, mlflow: Tracker | None, besides: Sequence[Beside] = ()) -> None:
        self.mlflow, self.besides = mlflow, besides

    def __call__(self, event: Event) -> None:
        for tracker in (self.mlflow, *self.besides):
            if tracker is not None:
                tracker(event)

    def add(self, states: Sequence[CellState]) -> None:
        """Makes cells known that the results of others have decided."""
        for tracker in (self.mlflow, *self.besides):
            if tracker is not None:
                tracker.add(states)

    def close(self, timeout: float = 60.0) -> str | None:
        """Waits until everything is logged, or no longer; returns what is not in MLflow."""
        problem = None if self.mlflow is None else self.mlflow.close(timeout)
        self.problems = [
            line for one in self.besides if (line := one.close(min(timeout, CLOSE_SECONDS)))
        ]
        return problem

    problems: Sequence[str] = ()
    """What the others lack, one line each, once they are closed."""

    @property
    def told(self) -> list[str]:
        """What was done to a broken database, and what the others lack, one line each."""
        own = self.mlflow.told if self.mlflow is not None else None
        return [*filter(None, [own]), *self.problems]

    @property
    def notes(self) -> list[str]:
        """How the runs beside MLflow can be seen, one line each."""
        return [f"{one.name}: {one.note}" for one in self.besides if one.note]


def start_besides(
    grid: GridSpec, runs_dir: Path, states: Sequence[CellState]
) -> tuple[list[Beside], list[str]]:
    """Starts the trackers that a grid names beside MLflow; those that are not here are told."""
    names = grid.tracking.also
    missing = not_installed(names)
    here = [Beside(name, grid, runs_dir, states) for name in names if name not in missing]
    return here, list(missing.values())
