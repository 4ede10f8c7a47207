"""What each variant cost: means over its finished cells, beside what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.measurements import Variant, variant_of

if TYPE_CHECKING:
    import pandas as pd

COSTS = (
    *("examples", "steps", "seconds", "evaluation_seconds"),
    *("tokens_per_second", "peak_memory_bytes", "peak_learning_rate"),
)
"""Columns of the cells frame."""
PREDICTED = ["expected_training_seconds", "expected_scoring_seconds"]


@dataclass(frozen=True)
class CostLine:
    """Costs of a variant; None where nothing is known."""

    variant: Variant
    num_done: int
    num_cells: int
    parameters: float | None
    """Trained ones."""
    means: Mapping[str, float | None]
    """By name of COSTS, over the finished cells."""
    predicted_seconds: float | None
    """Training and scoring, per finished cell that has a prediction."""
    measured_ratio: float | None
    """Measured over predicted seconds of those cells."""


def cost_lines(cells: pd.DataFrame) -> list[CostLine]:
    """Costs of every variant of the cells frame, in its order."""
    lines = []
    keys = ["model", "method", "method_name", "method_title", "fraction"]
    for _, part in cells.groupby(keys, sort=False, dropna=False):
        done = part[part["status"] == "done"]
        lines.append(
            CostLine(
                variant_of(part.iloc[0].to_dict()),
                len(done),
                len(part),
                _mean(part, "trainable_parameters"),
                {name: _mean(done, name) for name in COSTS},
                *_predicted(done),
            )
        )
    return lines


def _mean(frame: pd.DataFrame, name: str) -> float | None:
    values = frame[name].dropna() if name in frame else ()
    return float(sum(values) / len(values)) if len(values) else None


def _predicted(cells: pd.DataFrame) -> tuple[float | None, float | None]:
    if any(name not in cells for name in PREDICTED):
        return None, None
    known = cells.dropna(subset=[*PREDICTED, "evaluation_seconds"])
    predicted = float(known[PREDICTED].sum().sum())
    if not predicted:
        return None, None
    measured = float(known["seconds"].fillna(0.0).sum() + known["evaluation_seconds"].sum())
    return predicted / len(known), measured / predicted
