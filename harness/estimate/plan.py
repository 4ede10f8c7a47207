"""The rows of `zbench plan`: what each cell is before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.grid.schema import Cell, RowCounts
from harness.grid.status import CellState
from harness.methods import METHODS


def column(head: str, form: str = "{}", **default: Any) -> Any:
    """A field that is also printed: under `head`, written by `form`, numbers to the right."""
    return field(metadata={"head": head, "form": form}, **default)


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One cell before it runs; None where nothing tells. A new column is a field here."""

    cell_id: str | None = column("id")
    """None of a cell that a tuning will decide."""
    label: str = column("cell")
    status: str = column("status")
    examples: int | None = column("examples", "{:,}", default=None)
    steps: int | None = column("steps", "{:,}", default=None)
    learning_rate: float | None = column("learning rate", "{:g}", default=None)
    """The resolved peak rate."""
    trainable_parameters: int = column("trainable", "{:,}")
    total_parameters: int
    missing_tasks: tuple[str, ...]
    trained: bool
    warning: str | None = None
    """What a reader should know before paying for it."""


def plan_rows(
    states: Sequence[CellState],
    rows: RowCounts,
    lost: Callable[[Cell], str | None] = lambda _cell: None,
) -> list[PlanRow]:
    """One row per cell; `rows` has the size of each training set.

    `lost` says how many examples of a cell are lost, where that is known.
    """
    return [_plan_row(state, rows.get(state.cell.data_name), lost) for state in states]


def _plan_row(state: CellState, rows: int | None, lost: Callable[[Cell], str | None]) -> PlanRow:
    cell = state.cell
    training: dict[str, Any] = {}
    if cell.train is not None and cell.fraction is not None:
        training["learning_rate"] = cell.train.peak_learning_rate
        if rows is None and cell.train.max_steps is not None:
            training["steps"] = cell.train.max_steps
        if rows is not None:
            examples = round(cell.fraction * rows)
            steps, warmup = cell.train.total_steps(examples), cell.train.warmup(examples)
            training |= {"examples": examples, "steps": steps}
            warnings = [None if state.trained else lost(cell)]
            if warmup > steps / 2:
                warnings.append(f"the warm-up takes {warmup:g} of {steps} steps")
            said = "; ".join(filter(None, warnings))
            training["warning"] = f"{cell.label}: {said}" if said else None
    return PlanRow(
        cell_id=cell.id,
        label=cell.label,
        status=state.status,
        trainable_parameters=METHODS[cell.method].count_parameters(cell.model.shape, cell.options),
        total_parameters=cell.model.shape.num_parameters,
        missing_tasks=tuple(task.name for task in state.missing),
        trained=state.trained,
        **training,
    )
