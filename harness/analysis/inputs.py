"""What the analysis of a grid takes: its results as frames, and what stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReportInput:
    """All that a report is made from; frames as `harness.analysis.frames` makes them."""

    grid_name: str
    grid_title: str
    grid_yaml: str
    """The grid's text as the user wrote it."""
    scores: pd.DataFrame
    """One row per cell × task × metric."""
    cells: pd.DataFrame
    """One row per planned cell, done or not."""
    losses: pd.DataFrame
    """One row per cell × epoch."""
    items: Callable[[str, str], pd.DataFrame | None] = field(default=lambda _cell, _benchmark: None)
    """Per-item records of (cell_id, benchmark), None where there are none."""
    traces: Callable[[str, str], pd.DataFrame | None] = field(default=lambda _cell, _file: None)
    """What a method kept of a cell's training, by (cell_id, file name); None where there is none.
    See `harness.methods.method.TelemetryCallback.frames`."""
    theory: Path | None = None
    """The folder of `zbench theory`; it may hold nothing yet."""
    notes: tuple[str, ...] = ()
    """The grid's own lines for the page: what its world is, why its scores are as they are."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions, host, device, date, git commit, tracking address."""
