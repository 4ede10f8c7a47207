"""The order of the items of many cells, most of which answer the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class ItemOrders:
    """Sorted names of items; those that several cells have are one object, and sorted once."""

    def __init__(self) -> None:
        self._known: list[tuple[pd.DataFrame, pd.Index | None, np.ndarray]] = []

    def of(self, names: pd.DataFrame) -> tuple[pd.Index | None, np.ndarray]:
        """The sorted names, None where two items have one, and the rows in that order."""
        import pandas as pd

        for known, index, order in self._known:
            if known.equals(names):
                return index, order
        rows = pd.Series(range(len(names)), index=pd.MultiIndex.from_frame(names)).sort_index()
        found: pd.Index | None = rows.index if rows.index.is_unique else None
        if found is not None:  # indexes that are one object are compared at no cost
            same = (one for _, one, _ in self._known if one is not None and one.equals(found))
            found = next(same, found)
        self._known.append((names, found, rows.to_numpy()))
        return found, rows.to_numpy()
