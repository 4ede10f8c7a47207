"""Scores of single cells in the columns of a study, whether they stand in its tables or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.analysis.columns import Group, Setting
from harness.analysis.measurements import Measurements, finite

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Tables = Sequence[tuple[float, Setting, "pd.Index", "np.ndarray"]]
"""Of each part of a column its weight, how it was measured, the names of its (n) items, and their
(cells, n) scores."""


class CellScores:
    """The scores of all cells that `measured` knows, asked by the groups of any other."""

    def __init__(self, measured: Measurements) -> None:
        self.measured = measured
        self._values: Mapping[Setting, Mapping[str, float]] = {
            setting: dict(zip(own["cell_id"], map(float, own["value"]), strict=True))
            for setting, frame in measured.rows.items()
            if len(own := frame[finite(frame["value"])])
        }

    def value(self, cell_id: str, group: Group, column: str) -> float | None:
        """Score (0..1) of a cell in a column; None where it lacks a part."""
        parts = group.parts(column)
        found = [self._values.get(part, {}).get(cell_id) for part in parts or ()]
        known = [value for value in found if value is not None]
        if not known or len(known) < len(found):
            return None
        weights = group.weights_of(column).values()
        return sum(weight * value for weight, value in zip(weights, known, strict=True))

    def tables(self, cell_ids: Sequence[str], group: Group, column: str) -> Tables:
        """The items of a column, of those of the cells that have all of its parts.

        Empty where a part's items are not at hand or not the same ones, and of what is no share.
        """
        cells = [cell for cell in cell_ids if self.value(cell, group, column) is not None]
        parts = group.parts(column)
        if not cells or parts is None or any(part.unit is not None for part in parts):
            return []
        found: list[tuple[float, Setting, pd.Index, np.ndarray]] = []
        for weight, part in zip(group.weights_of(column).values(), parts, strict=True):
            if (table := self.measured.item_table(cells, part)) is not None:
                found.append((weight, part, *table))
        return found if len(found) == len(parts) else []
