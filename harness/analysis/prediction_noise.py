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

from harness.analysis.answers import ITEM_KEY
from harness.analysis.columns import Group, Setting
from harness.analysis.frames import ReportInput
from harness.analysis.noise import NoiseRuns
from harness.analysis.some_items import choose

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


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
    data: ReportInput, groups: Sequence[Group], runs: Sequence[NoiseRuns]
) -> Iterator[DrawLine]:
    """Yields a line for each column of sampled responses and each training whose responses were
    drawn several times by the same weights; or one that says that each item has one draw."""
    for group in groups:
        for column, setting in group.settings.items():
            if not setting.temperature or column not in group.columns:
                continue
            found = [line for one in runs if (line := _line(data, one, group, column))]
            yield from found or [DrawLine(None, group, column, 1, 0, None, None)]


def _line(data: ReportInput, runs: NoiseRuns, group: Group, column: str) -> DrawLine | None:
    """The line of the weights whose responses were drawn most often; None of one draw alone."""
    import numpy as np

    setting = group.settings[column]
    by_weights: dict[str, list[pd.Series]] = {}
    for cell, weights in zip(runs.same, runs.weights, strict=True):
        frames = data.draws(cell, setting.benchmark)
        scores = [own for frame in frames if (own := _scores(frame, setting)) is not None]
        by_weights.setdefault(weights or cell, []).extend(scores)
    draws = max(by_weights.values(), key=len)
    if len(draws) < 2 or any(not own.index.equals(draws[0].index) for own in draws):
        return None
    table = np.stack([own.to_numpy() for own in draws])
    if table.shape[1] < 2:
        return None
    item, prediction = divided(table)
    return DrawLine(runs, group, column, len(draws), table.shape[1], item, prediction)


def _scores(frame: pd.DataFrame, setting: Setting) -> pd.Series | None:
    """Scores by item; None where the records have none."""
    if not {*ITEM_KEY, setting.metric} <= set(frame.columns):
        return None
    series = (
        choose(frame, setting.where)
        .set_index(list(ITEM_KEY))[setting.metric]
        .sort_index()
        .astype(float)
    )
    return series if series.index.is_unique and series.notna().all() else None
