"""Prediction noise of sampled responses: what another draw changes, apart from what items do.

A response that is sampled scores x with a mean of its own on each item i, so that over items and
draws Var(x) = Var(E[x|i]) + E Var(x|i): item noise and prediction noise (2512.21326). With m draws
on each of n items by the same weights, E Var(x|i) is the mean over the items of the variance of
their draws (m - 1), and Var(E[x|i]) the variance of the items' means less E Var(x|i)/m. With one
draw per item the two are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.cell_scores import CellScores
from harness.analysis.columns import Group
from harness.analysis.measurements import Measurements
from harness.analysis.noise import NoiseRuns

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class DrawLine:
    """How the variance of an item's score (0..1, squared) divides; None where it cannot be told."""

    runs: NoiseRuns | None
    """Whose responses were drawn several times; None where nobody's were."""
    group: Group
    column: str
    num_draws: int
    num_items: int
    item: float | None
    """Var(E[x|i]); below 0 where the items' means differ less than the draws alone make them."""
    prediction: float | None
    """E Var(x|i)."""

    @property
    def prediction_share(self) -> float | None:
        """Prediction noise of the whole, 0..1; None where it is not known, or nothing varies."""
        if self.item is None or self.prediction is None:
            return None
        total = max(0.0, self.item) + self.prediction
        return self.prediction / total if total else None


def divided(draws: np.ndarray) -> tuple[float, float]:
    """Var(E[x|i]) and E Var(x|i) of (m, n) scores, m draws of two or more on each of n items."""
    within = float(draws.var(axis=0, ddof=1).mean())
    return float(draws.mean(axis=0).var(ddof=1)) - within / draws.shape[0], within


def draw_lines(
    measured: Measurements, scores: CellScores, runs: Sequence[NoiseRuns]
) -> Iterator[DrawLine]:
    """Yields a line for each column of sampled responses and each training that was repeated to the
    same bits; or one that says that each item has one draw."""
    for group in measured.groups:
        for column in group.settings:
            drawn = group.settings[column].temperature
            if not drawn or column not in group.columns:
                continue
            found = [line for one in runs if (line := _line(scores, one, group, column))]
            yield from found or [DrawLine(None, group, column, 1, 0, None, None)]


def _line(scores: CellScores, runs: NoiseRuns, group: Group, column: str) -> DrawLine | None:
    if not runs.same_weights:
        return None
    tables = scores.tables(runs.same, group, column)
    if len(tables) != 1 or min(tables[0][3].shape) < 2:
        return None
    item, prediction = divided(tables[0][3])
    num_draws, num_items = tables[0][3].shape
    return DrawLine(runs, group, column, num_draws, num_items, item, prediction)
