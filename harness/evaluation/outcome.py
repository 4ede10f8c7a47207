"""What evaluating one benchmark gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.records.results import TaskScore

if TYPE_CHECKING:
    import pandas

    from harness.evaluation.model_object import Batching


@dataclass(frozen=True)
class TaskOutcome:
    """Scores of one benchmark, and what they were made of."""

    scores: tuple[TaskScore, ...]
    """Those of the benchmark first, metric by metric; then of each subject where it is a group."""
    items: pandas.DataFrame
    """One row per item; the protocol's `items_frame` names the columns."""
    batching: Batching
    """How the requests were put together."""
    warnings: tuple[str, ...] = ()
    """What the reader of the scores must know; it stands in their notes too."""
