"""What each variant cost: means over its finished cells, beside what was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.analysis.measurements import variant_of

if TYPE_CHECKING:
    import pandas as pd

COSTS = (
    *("examples", "steps", "seconds", "evaluation_seconds"),
    *("tokens_per_second", "peak_memory_bytes", "peak_learning_rate"),
)
"""Columns of the cells frame."""
PREDICTED = ["expected_training_seconds", "expected_scoring_seconds"]


def cost_lines(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Costs of every variant of the cells frame, in its order; NaN where nothing is known.

    `variant`; `num_done` and `num_cells`; `trainable_parameters`; the means of COSTS over the
    finished cells; `predicted_seconds` of training and scoring per finished cell that has a
    prediction, and `measured_ratio`, measured over predicted seconds of those cells.
    """
    lines = []
    columns = list(dict.fromkeys([*cells, *COSTS, *PREDICTED]))
    keys = ["model", "method", "method_name", "method_title", "fraction"]
    for _, part in cells.reindex(columns=columns).groupby(keys, sort=False, dropna=False):
        done = part[part["status"] == "done"]
        known = done.dropna(subset=[*PREDICTED, "evaluation_seconds"])
        predicted = float(known[PREDICTED].sum().sum()) or float("nan")
        measured = float(known[["seconds", "evaluation_seconds"]].sum().sum())
        lines.append(
            {
                "variant": variant_of(part.iloc[0].to_dict()),
                "num_done": len(done),
                "num_cells": len(part),
                "trainable_parameters": part["trainable_parameters"].mean(),
                **{name: float(done[name].astype(float).mean()) for name in COSTS},
                "predicted_seconds": predicted / max(1, len(known)),
                "measured_ratio": measured / predicted,
            }
        )
    return lines
