"""TODO: say what this is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.grid.status import CellState
from harness.methods import METHODS


@dataclass(frozen=True)
class PlanRow:
    """One cell before it runs; None where nothing tells."""

    cell_id: str
    label: str
    status: str
    examples: int | None
    steps: int | None
    learning_rate: float | None
    """The resolved peak rate."""
    trainable_parameters: int
    total_parameters: int
    missing_tasks: tuple[str, ...]
    trained: bool
    warning: str | None = None
    """What a reader should know before paying for it."""


def plan_rows(states: Sequence[CellState], rows: int | None) -> list[PlanRow]:
    """Returns one row per cell.

    Args:
        states: the cells, as far as they are.
        rows: size of the training data, or None where it is unknown.
    """
    return [_plan_row(state, rows) for state in states]


def _plan_row(state: CellState, rows: int | None) -> PlanRow:
    cell = state.cell
    examples = steps = rate = warning = None
    if cell.train is not None and cell.fraction is not None:
        rate = cell.train.peak_learning_rate
        if rows is not None:
            examples = round(cell.fraction * rows)
            steps = cell.train.total_steps(examples)
            warmup = cell.train.warmup(examples)
            if warmup > steps / 2:
                warning = f"{cell.label}: the warm-up takes {warmup:g} of {steps} steps"
    counted = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    return PlanRow(
        cell_id=cell.id,
        label=cell.label,
        status=state.status,
        examples=examples,
        steps=steps,
        learning_rate=rate,
        trainable_parameters=counted,
        total_parameters=cell.model.shape.num_parameters,
        missing_tasks=tuple(task.name for task in state.missing),
        trained=state.trained,
        warning=warning,
    )
