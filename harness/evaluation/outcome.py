"""TODO: say what this is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.records.results import TaskScore

if TYPE_CHECKING:
    import pandas

    from harness.evaluation.paper.model import Pooling
    from harness.evaluation.scorer import Batching


@dataclass(frozen=True)
class TaskOutcome:
    """What evaluating one benchmark gave."""

    scores: tuple[TaskScore, ...]
    """Of the benchmark first, metric by metric; then of each subject where it is a group."""
    items: pandas.DataFrame
    """One row per item; the columns are in `scores.items_frame`."""
    prompts_sha256: str
    """Of the texts of all requests, in order."""
    batching: Batching | Pooling
    """How the requests were put together."""
    warnings: tuple[str, ...] = ()
    """What its reader must know; it stands in the notes of the scores too."""
